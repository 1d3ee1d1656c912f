/* layout.h - every byte that processes share: the map file, the heap file, and nothing else.
 *
 * Two memory files.  The map is written by the daemon alone; clients hold a read-only descriptor of it.  The heap is
 * written by all.  Both are sparse, sized once for the whole reservation, and sealed; memory stands behind a page of
 * them only where the daemon put it (fallocate) before it told anybody of it.
 *
 *   map:   header | roots | clients | slots | page map (8 bytes a page)
 *   heap:  header | thread slots | central dirty bits | span records | dense state (4 areas) | tiny state (2 areas) | pages
 *
 * Everything is found by arithmetic on a page number; no pointer lies in shared memory, only offsets (refs).
 * docs/layout.md describes the same in words; tests/unit/test_layout.c pins sizes and offsets.  Change anything here
 * and TGS_LAYOUT_VERSION goes up: a process with another version refuses to attach.
 *
 * Each field says who writes it and who reads it: `W: who (how)  R: who (how)`, or `const once published`.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#define TGS_LAYOUT_VERSION 8u

#define TGS_PAGE_SHIFT  13
#define TGS_PAGE_SIZE   8192u
#define TGS_OS_PAGE     4096u
#define TGS_CHUNK_PAGES 512u /* 4 MiB: what the page heap's bitmap chunks cover, as in Go */

#define TGS_SLOT_BITS      14
#define TGS_SLOTS_MAX      (1u << TGS_SLOT_BITS)
#define TGS_SLOT_NONE      0u /* what a forked child finds in its wiped cache: owns nothing */
#define TGS_SLOT_CENTRAL   1u /* the daemon's own: spans that no client holds */
#define TGS_CLIENTS_MAX    16384u
#define TGS_ROOTS_MAX      4096u
#define TGS_ROOT_NAME_SIZE 128u /* with the closing NUL */
#define TGS_HEAP_NAME_SIZE 64u  /* with the closing NUL */

#define TGS_DENSE_KINDS 3u /* areas for the bytes of dense spans, see TGS_DENSE_BYTES */

#define TGS_RESERVE_MIN (UINT64_C(64) << 20)
#define TGS_RESERVE_MAX (UINT64_C(16) << 40)

/* ---- the page map: one entry a page, in the map file ----
 *
 * 0: the page belongs to no span, or is an inner page of a large one.
 * bits  0..6   class: 0 large, 1..67 small, 68 tiny
 * bit   7      set: the page belongs to a span
 * bits  8..21  owner: the thread slot that holds the span (TGS_SLOT_CENTRAL: none)
 * bits 24..27  distance to the first page of the span, in pages (small spans)
 * bit   28     published and remote words of this dense or tiny span have memory (TGS_ENTRY_MORE)
 * bits 32..63  length of the span in pages (large spans; in the first page's entry, the only one they have)
 */
#define TGS_ENTRY_CLASS_MASK  UINT64_C(0x7f)
#define TGS_ENTRY_SPAN        UINT64_C(0x80)
#define TGS_ENTRY_OWNER_SHIFT 8
#define TGS_ENTRY_OWNER_MASK  (UINT64_C(0x3fff) << TGS_ENTRY_OWNER_SHIFT)
#define TGS_ENTRY_DELTA_SHIFT 24
#define TGS_ENTRY_DELTA_MASK  (UINT64_C(0xf) << TGS_ENTRY_DELTA_SHIFT)
/* Set once the memory is there, by the daemon, and never taken back while the span is one.  Without it those words are all
 * zero, and nobody may touch them: there is a hole in the file. */
#define TGS_ENTRY_MORE        (UINT64_C(1) << 28)
#define TGS_ENTRY_PAGES_SHIFT 32

static inline uint64_t tgs_entry_make(unsigned class, unsigned owner, unsigned delta,
				      uint64_t large_pages)
{
	return class | TGS_ENTRY_SPAN | (uint64_t)owner << TGS_ENTRY_OWNER_SHIFT |
	       (uint64_t)delta << TGS_ENTRY_DELTA_SHIFT | large_pages << TGS_ENTRY_PAGES_SHIFT;
}

static inline unsigned tgs_entry_class(uint64_t entry)
{
	return (unsigned)(entry & TGS_ENTRY_CLASS_MASK);
}

static inline unsigned tgs_entry_owner(uint64_t entry)
{
	return (unsigned)((entry & TGS_ENTRY_OWNER_MASK) >> TGS_ENTRY_OWNER_SHIFT);
}

static inline unsigned tgs_entry_delta(uint64_t entry)
{
	return (unsigned)((entry & TGS_ENTRY_DELTA_MASK) >> TGS_ENTRY_DELTA_SHIFT);
}

static inline uint64_t tgs_entry_large_pages(uint64_t entry)
{
	return entry >> TGS_ENTRY_PAGES_SHIFT;
}

/* ---- map file ---- */

#define TGS_MAP_MAGIC UINT64_C(0x0a70616d20677401)

/* Where everything lies.  A function of n_pages alone (tgs_geometry_init), so a reader recomputes and compares it. */
struct tgs_geometry {
	uint64_t n_pages; /* const once published */
	/* byte offsets in the map file, and its length */
	uint64_t roots_at;    /* const once published */
	uint64_t clients_at;  /* const once published */
	uint64_t slots_at;    /* const once published */
	uint64_t page_map_at; /* const once published */
	uint64_t map_bytes;   /* const once published */
	/* byte offsets in the heap file, and its length */
	uint64_t threads_at;                      /* const once published */
	uint64_t dirty_at;                        /* const once published */
	uint64_t records_at;                      /* const once published */
	uint64_t dense_at;                        /* const once published */
	uint64_t dense_taken_at[TGS_DENSE_KINDS]; /* const once published; see TGS_DENSE_BYTES */
	uint64_t tiny_taken_at;                   /* const once published */
	uint64_t tiny_more_at;                    /* const once published */
	uint64_t data_at;    /* const once published; the pages; a multiple of 4 MiB */
	uint64_t heap_bytes; /* const once published */
	/* a link's 64 bits: offset in the low bits, then thread slot, then sequence number */
	uint32_t link_offset_bits; /* const once published */
	uint32_t link_seq_bits;    /* const once published */
};

struct tgs_map_header {
	uint64_t magic;          /* const once published; written last when the heap is made */
	uint32_t layout_version; /* const once published */
	uint32_t header_bytes;   /* const once published: sizeof(struct tgs_map_header) */
	uint8_t uuid[16];        /* const once published: names this pair of files */
	char name[TGS_HEAP_NAME_SIZE]; /* const once published */
	uint64_t base;          /* const once published: address of the heap in every process */
	uint64_t reserve_bytes; /* const once published: n_pages * 8192 */
	struct tgs_geometry geometry; /* const once published */
	_Atomic uint64_t
		limit_bytes; /* W: daemon   R: all    relaxed; pages in spans may not exceed it */
	_Atomic uint64_t
		daemon_epoch; /* W: daemon (at start)   R: all    relaxed; how many daemons served these files */
	_Atomic uint64_t
		trim_epoch; /* W: daemon   R: clients (slow paths)   relaxed; raised: give back what you hoard */
	_Atomic uint64_t
		n_roots; /* W: daemon   R: all    relaxed; root entries ever used: look-ups stop there */
	_Atomic uint64_t
		n_slots; /* W: daemon (release)   R: all (acquire); thread slots ever used are below */
	_Atomic uint64_t
		rooting; /* W: daemon   R: daemon   relaxed; ref that a root is being made to lead to; 0: none */
	_Atomic uint64_t
		recovered; /* W: daemon   R: daemon   relaxed; low half: dead clients settled since the files were made; high half: the id of the last one */
	_Atomic uint64_t
		scavenged_bytes; /* W: daemon   R: daemon   relaxed; given back to the kernel, likewise */
};

/* A root.  Its slot in the table is found by trying all entries in use: there are few, and look-ups are rare.
 * The reader takes `generation`, compares the name, takes `ref`, and takes `generation` again: equal and even means
 * that the name was not exchanged meanwhile.  Odd means that it is being written; the entry is then nobody's. */
struct tgs_root {
	_Atomic uint32_t
		generation; /* W: daemon (release)   R: all (acquire); odd while the name is written */
	uint32_t hash;      /* W: daemon, while generation is odd   R: all */
	_Atomic uint64_t ref;          /* W: daemon (release)   R: all (acquire); 0: no such root */
	char name[TGS_ROOT_NAME_SIZE]; /* W: daemon, while generation is odd   R: all, as above */
	uint64_t reserved[2];
};

enum tgs_client_state {
	TGS_CLIENT_FREE, /* the entry is nobody's */
	TGS_CLIENT_LIVE, /* a process that is connected, or that may come back */
	TGS_CLIENT_DEAD, /* its process has ended; what it held is being settled */
};

/* It ended by saying so: settled like the dead, but not counted as recovered. */
#define TGS_CLIENT_DETACHED 2u

/* What the next daemon must know of a client, were this one to die. */
struct tgs_client {
	_Atomic uint32_t state; /* W: daemon (release, after the rest)   R: daemon */
	uint32_t pid;           /* W: daemon   R: daemon */
	uint64_t
		start_time; /* W: daemon   R: daemon; clock ticks after boot: with pid names a process for good */
	uint32_t uid;        /* W: daemon   R: daemon */
	uint32_t gid;        /* W: daemon   R: daemon */
	uint32_t flags;      /* W: daemon   R: daemon; TG_RECLAIM, TGS_CLIENT_DETACHED */
	uint32_t generation; /* W: daemon   R: daemon; client id = index | generation above it */
	char name[TGS_HEAP_NAME_SIZE]; /* W: daemon   R: daemon */
	uint64_t reserved[4];
};

/* Which client a thread slot belongs to. */
struct tgs_slot_owner {
	_Atomic uint32_t
		client; /* W: daemon (release)   R: all (relaxed, to name an owner); index + 1, 0: free */
	uint32_t flags; /* W: daemon, before `client`   R: daemon; TGS_SLOT_IS_CLOSET */
};

#define TGS_SLOT_IS_CLOSET 1u

/* ---- heap file ---- */

#define TGS_HEAP_MAGIC UINT64_C(0x0a70616568677402)

struct tgs_heap_header {
	uint64_t magic;   /* const once published */
	uint8_t uuid[16]; /* const once published: the map's */
};

/* What a detectable step changes, in the low bits of tgs_step.word (words are 8-aligned). */
enum tgs_step_kind {
	TGS_STEP_NONE = 0,
	TGS_STEP_FREE = 1, /* remote bits of a group of objects: `arg` has the mask */
	TGS_STEP_SWAP = 2, /* a link: old and new payloads and flags, see shm/link.h */
};
#define TGS_STEP_KIND_MASK UINT64_C(7)

/* What a swap does beside swinging the link: TG_GIVE and TG_RETIRE of tg.h, and what follows from them. */
#define TGS_SWAP_GIVE   UINT64_C(1)
#define TGS_SWAP_RETIRE UINT64_C(2)
#define TGS_SWAP_PRIVATE \
	UINT64_C(        \
		4) /* the object given was not published before: if it does not get in, it is not */

/* The step that a thread has in flight (docs/design.md, "Detectable steps").  The owner writes the rest, then `word`
 * with release; the step takes place; then `word` becomes 0.  So whoever sees a step's tag in a shared word also sees
 * this record, or finds that the thread has moved on. */
struct tgs_step {
	_Atomic uint64_t
		word; /* W: owner (release)   R: helpers, recoverer (acquire); offset of the word | kind; 0: none */
	_Atomic uint64_t
		seq; /* W: owner (relaxed)   R: helpers, recoverer; counts the thread's steps, never wraps */
	_Atomic uint64_t arg; /* W: owner (relaxed)   R: recoverer; FREE: mask; SWAP: TGS_SWAP_* */
	_Atomic uint64_t
		old_ref; /* W: owner (relaxed)   R: recoverer; SWAP: what is replaced, and with TG_RETIRE freed */
	_Atomic uint64_t
		new_ref; /* W: owner (relaxed)   R: recoverer; SWAP: what takes its place, with TG_GIVE published */
	uint64_t reserved[3];
};

#define TGS_PENDING_FREES 512u
#define TGS_PENDING_GROUP 8u /* places that share a bit of tgs_slot.held */

/* Foreign frees of up to 32 neighbours, not yet applied.  mask 0: the place is free.  To fill a place: its bit in
 * tgs_slot.held, word, then mask (release); to add: mask; to empty it after the step: mask = 0, then step.word = 0.  Which
 * place a word gets is its thread's to say (client/foreign.c); a recoverer looks at all of them. */
struct tgs_pending {
	_Atomic uint64_t
		word; /* W: owner (relaxed)   R: recoverer, check; heap offset of the remote word */
	_Atomic uint32_t mask; /* W: owner (release)   R: recoverer, check (acquire) */
	uint32_t reserved;
};

/* The bit of a place in tgs_slot.held. */
static inline uint64_t tgs_pending_group(unsigned place)
{
	return UINT64_C(1) << place / TGS_PENDING_GROUP;
}

#define TGS_DIRTY_BITS 1024u

/* A thread cache's share of shared memory. */
struct tgs_slot {
	/* line 0: who */
	_Atomic uint32_t in_use; /* W: daemon (at open and close)   R: all (relaxed) */
	uint32_t reserved0;
	_Atomic uint64_t
		tiny_block; /* W: owner   R: all; ref of the current tiny block, pinned while it stands here; 0: none */
	_Atomic uint64_t
		tiny_left; /* W: owner (release)   R: all (acquire; tiny_block before and after); bytes of it not handed out, the last ones */
	_Atomic uint64_t
		held; /* W: owner (before the first place of the group is filled, after all are applied)   R: recoverer, check; a bit for each group of `pending`: clear, all its places are free */
	uint64_t reserved1[4];
	/* line 1 */
	struct tgs_step step;
	/* line 2: helpers raise it to the sequence number of a step that they saw done (atomic maximum) */
	_Atomic uint64_t
		mark; /* W: any (compare-and-swap, release)   R: recoverer (acquire, after the word) */
	uint64_t reserved2[7];
	/* lines 3, 4: a hint of which spans of this slot have remote bits: bit (first page mod 1024) */
	_Atomic uint64_t
		dirty[TGS_DIRTY_BITS / 64]; /* W: any (or, release), owner (exchange)   R: owner */
	/* 128 lines */
	struct tgs_pending pending[TGS_PENDING_FREES];
	uint64_t reserved3[24];
};

/* Is there an object in this slot?  A byte for each, but for tiny spans, so that the owner's malloc is a store and its free a
 * look and a store, which no other slot's have to wait for.
 * W: owner thread (plain stores), daemon once nobody owns the span; while it is TGS_TAKEN or TGS_HELD, any thread of the
 *    owning process that frees the object, or hands the slot out again (plain stores); of a large span any thread of that
 *    process (exchange); anybody who sets TGS_SPECIAL of a live object (or)
 * R: all (relaxed) */
typedef _Atomic uint8_t tgs_taken;

#define TGS_TAKEN 1u
#define TGS_SPECIAL \
	2u /* it is, or was about to be, published or freed by others: the unit's words tell; else they need no look */

/* Instead of TGS_TAKEN: no object is there, and the thread that freed the last one keeps the slot at hand; for others, its
 * owner too, it is not free.  Ends with the process. */
#define TGS_HELD 4u
/* With TGS_TAKEN: a thread of the owning process has freed the object, and its owner is to hear of it. */
#define TGS_GOING 8u

/* What else there is to know of up to 64 objects of a span: one bit each.  An object is live when it is taken and `remote` is
 * not set. */
struct tgs_unit {
	uint64_t reserved;
	_Atomic uint64_t published; /* W: any (or), owner at free (and)   R: all */
	_Atomic uint64_t remote
		[2]; /* W: any (compare-and-swap)   R: all; 32 objects and a tag each, see TGS_REMOTE_* */
};

/* A span's record, at its first page: two cache lines.  All zero while the page belongs to no span. */
struct tgs_record {
	_Atomic uint64_t
		flags; /* W: any (or), owner (and)   R: any; TGS_RECORD_HAS_LINKS: a tg_link was swung in it;
			  TGS_RECORD_SHORTER: of a large span, owner alone: its end has been, or is being, given back */
	uint64_t reserved[3];
	struct tgs_unit unit; /* of spans with at most 64 objects, large ones too */
	tgs_taken taken[64];  /* likewise */
};

#define TGS_RECORD_HAS_LINKS UINT64_C(1)
#define TGS_RECORD_SHORTER   UINT64_C(2)

#define TGS_DENSE_UNITS 8u   /* spans with up to 512 objects: units in the dense area */
#define TGS_DENSE_GROUP 16u  /* their pages share an OS page of it, and so TGS_ENTRY_MORE */
#define TGS_TINY_UNITS  128u /* tiny spans: one bit a byte */

/* The bytes of their slots lie in three areas, by how many there can be: up to 128, 256 and 512, and so many bytes a page. */
#define TGS_DENSE_BYTES(i) (UINT64_C(128) << (i))

/* Tiny spans have their taken words apart, since they are all that most tiny spans ever touch: half as many bytes as the
 * others, and the only ones that have memory from the start. */
struct tgs_tiny_taken {
	_Atomic uint64_t taken[TGS_TINY_UNITS];
};

/* The others, an OS page for each span: has memory only where the span's entry has TGS_ENTRY_MORE. */
struct tgs_tiny_more {
	struct {
		uint64_t reserved;
		_Atomic uint64_t published; /* as in struct tgs_unit */
		_Atomic uint64_t remote[2]; /* as in struct tgs_unit */
	} unit[TGS_TINY_UNITS];
};

/* A remote word: 32 objects, and a tag: thread slot and low bits of the sequence number of the step that wrote it last.
 * The objects are the high half of the first word of a unit and the low half of the second, so that the bits of all 64 lie
 * side by side.  remote[0] is 16-aligned: bit 3 of a word's address is its half. */
#define TGS_REMOTE_BITS_SHIFT(half) ((half) ? 0 : 32)
#define TGS_REMOTE_SLOT_SHIFT(half) ((half) ? 32 : 0)
#define TGS_REMOTE_SEQ_BITS         (32 - TGS_SLOT_BITS)

static inline uint32_t tgs_remote_objects(uint64_t word, unsigned half)
{
	return (uint32_t)(word >> TGS_REMOTE_BITS_SHIFT(half));
}

_Static_assert(sizeof(struct tgs_root) == 160, "layout");
_Static_assert(sizeof(struct tgs_client) == 128, "layout");
_Static_assert(sizeof(struct tgs_slot_owner) == 8, "layout");
_Static_assert(sizeof(struct tgs_map_header) <= TGS_OS_PAGE, "layout");
_Static_assert(sizeof(struct tgs_step) == 64, "layout");
_Static_assert(sizeof(struct tgs_slot) == 8704, "layout");
_Static_assert(TGS_PENDING_FREES == 64 * TGS_PENDING_GROUP, "layout");
_Static_assert(sizeof(struct tgs_unit) == 32, "layout");
_Static_assert(sizeof(struct tgs_record) == 128, "layout");
_Static_assert(TGS_DENSE_GROUP *TGS_DENSE_UNITS * sizeof(struct tgs_unit) == TGS_OS_PAGE, "layout");
_Static_assert(TGS_DENSE_BYTES(TGS_DENSE_KINDS - 1) == TGS_DENSE_UNITS * 64, "layout");
_Static_assert(sizeof(struct tgs_tiny_taken) == 1024, "layout");
_Static_assert(sizeof(struct tgs_tiny_more) == 4096, "layout");
