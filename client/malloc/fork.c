/* fork.c - a forked child gets copies of its parent's objects, as an unmodified program expects.
 *
 * The heap is mapped shared, so without this the child would go on seeing and changing what its
 * parent has.  Around each fork() that is made by a process with objects in the heap:
 *
 *   before     the parent lists the spans that it holds and that are not empty
 *   in child   each run of them is copied to private memory, which is moved to the run's address
 *              (mremap)
 *   in parent  waits until the child has done that, or has died: its objects must not change
 *              under the copying
 *
 * The parent waits also when there is nothing to copy: until the child has closed what it inherited of the
 * connection.  With that still open the daemon would take a program that the parent executes right away for a
 * second client in a process that is one already.
 *
 * Addresses stay, so all pointers go on to be valid.  What is copied is inherited: the child may
 * read and write it, free does nothing to it, and realloc copies out of it.  The child's own new
 * objects are shared-heap objects again, as it becomes a client of its own; spans granted to it
 * at addresses where it has copies are not used (the parent has given them back since, and the
 * child may still want what lay there).  vfork and posix_spawn share memory until exec, and need
 * nothing.  A child made by a bare clone(2) or _Fork() gets no copies and must not touch what it
 * inherited.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <ucontext.h>
#include <unistd.h>

#include "client/cache.h"
#include "client/malloc/dropin.h"

/* Pieces of address space that a child is cut into: the kernel has a limit of 65530. */
#define RUNS_MAX 16384u

/* A private page at which no object starts.  A page map entry has bit 7. */
#define INNER UINT64_C(1)

#define STACK_BYTES (256u << 10)

struct run {
	uint64_t page;
	uint64_t n_pages;
};

uint64_t *tgc_inherited;

/* All under tgc_dropin_lock. */
static struct run *runs; /* spans to be copied; room for as many as there can be */
static size_t n_runs;
static uint64_t owned[TGS_SLOTS_MAX / 64]; /* one bit a thread slot: it is this process's */
static int gate[2] = {-1, -1}; /* the child closes its end when it has its copies, or by dying */
static int cancel_state; /* of the thread that forks, which is not to be cancelled meanwhile */

/* Where this process's spans lie; widened before a span is used, never narrowed. */
static _Atomic uint64_t low_page = UINT64_MAX;
static _Atomic uint64_t high_page;

static void widen(uint64_t page, uint64_t end)
{
	uint64_t old = atomic_load_explicit(&low_page, memory_order_relaxed);

	while (page < old && !atomic_compare_exchange_weak(&low_page, &old, page))
		;
	old = atomic_load_explicit(&high_page, memory_order_relaxed);
	while (end > old && !atomic_compare_exchange_weak(&high_page, &old, end))
		;
}

bool tgc_malloc_may_use(uint64_t page, uint64_t n_pages)
{
	uint64_t i;

	for (i = 0; tgc_inherited && i < n_pages; i++) {
		if (tgc_inherited[page + i] != 0)
			return false;
	}
	widen(page, page + n_pages);
	return true;
}

/* ---- before ---- */

static void list_slots(void)
{
	const struct tgc_cache *cache;

	memset(owned, 0, sizeof(owned));
	pthread_mutex_lock(&tgc_process->lock);
	for (cache = tgc_process->all; cache; cache = cache->next_all)
		owned[cache->slot_id / 64] |= UINT64_C(1) << cache->slot_id % 64;
	pthread_mutex_unlock(&tgc_process->lock);
	owned[0] &= ~(UINT64_C(1) << TGS_SLOT_NONE | UINT64_C(1) << TGS_SLOT_CENTRAL);
}

static bool is_owned(uint32_t slot)
{
	return owned[slot / 64] >> slot % 64 & 1;
}

static void *map_private(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static void list_runs(void)
{
	uint64_t page = atomic_load(&low_page), end = atomic_load(&high_page);
	struct tgs_span span;

	n_runs = 0;
	if (!runs || !atomic_load(&tgc_process->attached) || page >= end)
		return;
	list_slots();
	for (; page < end; page++) {
		if (!tgs_span_at(&tgc_heap, page, &span) || span.page != page ||
		    !is_owned(span.owner) || tgs_span_empty(&tgc_heap, &span))
			continue;
		if (n_runs != 0 && runs[n_runs - 1].page + runs[n_runs - 1].n_pages == page)
			runs[n_runs - 1].n_pages += span.n_pages;
		else
			runs[n_runs++] = (struct run){.page = page, .n_pages = span.n_pages};
		page += span.n_pages - 1;
	}
}

/* With all descriptors in use, two more than the program set itself as its limit, if the
 * system lets it. */
static bool open_gate(void)
{
	struct rlimit limit, more;
	int r;

	if (pipe2(gate, O_CLOEXEC) == 0)
		return true;
	if (errno != EMFILE || getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return false;
	more = limit;
	more.rlim_cur += 2;
	if (more.rlim_cur > more.rlim_max || setrlimit(RLIMIT_NOFILE, &more) < 0)
		return false;
	r = pipe2(gate, O_CLOEXEC);
	(void)setrlimit(RLIMIT_NOFILE, &limit);
	return r == 0;
}

static void before_fork(void)
{
	int saved_errno = errno, old_state;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old_state);
	/* One fork at a time: another child would inherit the gate and keep it open. */
	pthread_mutex_lock(&tgc_dropin_lock);
	cancel_state = old_state;
	list_runs();
	gate[0] = gate[1] = -1;
	if ((n_runs != 0 || tgc_saved.socket_fd >= 0) && !open_gate()) {
		gate[0] = gate[1] = -1;
		if (n_runs != 0)
			tgc_dropin_say("fork: no pipe to wait for the child with, so it may find "
				       "its copy of our memory torn",
				       strerror(errno));
	}
	errno = saved_errno;
}

/* ---- in the parent ---- */

static void in_parent(void)
{
	int saved_errno = errno, old_state = cancel_state;
	char byte;

	if (gate[0] >= 0) {
		close(gate[1]);
		while (read(gate[0], &byte, 1) < 0 && errno == EINTR)
			;
		close(gate[0]);
	}
	pthread_mutex_unlock(&tgc_dropin_lock);
	pthread_setcancelstate(old_state, NULL);
	errno = saved_errno;
}

/* ---- in the child ---- */

static __attribute__((noreturn)) void die(const char *what)
{
	tgc_dropin_say(what, strerror(errno));
	abort();
}

static void inherit(const struct run *run)
{
	uint64_t page, end = run->page + run->n_pages;

	for (page = run->page; page < end; page++) {
		uint64_t entry = tgs_page_entry(&tgc_heap, page);

		tgc_inherited[page] = entry != 0 ? entry : INNER;
	}
}

/* Replaces a group of runs, and the gaps between them, by private memory.  In a gap there is
 * nothing of the parent's, but for what it inherited itself. */
static void copy_group(const struct run *group, size_t n)
{
	uint64_t first = group->page, end = group[n - 1].page + group[n - 1].n_pages, page;
	size_t bytes = (end - first) << TGS_PAGE_SHIFT, i;
	uint8_t *copy = map_private(bytes);

	if (!copy)
		die("fork: no memory for the child's copy");
	for (page = first; page < end; page++) {
		if (tgc_inherited[page] != 0)
			memcpy(copy + ((page - first) << TGS_PAGE_SHIFT),
			       tgs_page_address(&tgc_heap, page), TGS_PAGE_SIZE);
		else
			tgc_inherited[page] = INNER;
	}
	for (i = 0; i < n; i++) {
		uint8_t *to = copy + ((group[i].page - first) << TGS_PAGE_SHIFT);
		size_t run_bytes = group[i].n_pages << TGS_PAGE_SHIFT;

#ifdef MADV_POPULATE_WRITE
		(void)madvise(to, run_bytes, MADV_POPULATE_WRITE); /* only to be faster */
#endif
		memcpy(to, tgs_page_address(&tgc_heap, group[i].page), run_bytes);
		inherit(&group[i]);
	}
	if (mremap(copy, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED,
		   tgs_page_address(&tgc_heap, first)) == MAP_FAILED)
		die("fork: cannot put the child's copy in its place");
}

/* Runs that lie closer than this to each other are one group; more is only chosen when there
 * are very many. */
static uint64_t choose_gap(void)
{
	uint64_t gap;
	size_t i, n_groups;

	for (gap = 2;; gap *= 4) {
		n_groups = 1;
		for (i = 1; i < n_runs; i++)
			n_groups += runs[i].page - (runs[i - 1].page + runs[i - 1].n_pages) > gap;
		if (n_groups <= RUNS_MAX)
			return gap;
	}
}

static void copy_all(void)
{
	uint64_t gap = choose_gap();
	size_t first = 0, i;

	for (i = 1; i <= n_runs; i++) {
		if (i < n_runs && runs[i].page - (runs[i - 1].page + runs[i - 1].n_pages) <= gap)
			continue;
		copy_group(&runs[first], i - first);
		first = i;
	}
}

/* The parent's connection.  Kept open here, it would look to the daemon as if the parent had it still
 * after an exec. */
static void close_connection(void)
{
	struct stat st;

	if (tgc_saved.socket_fd >= 0 && fstat(tgc_saved.socket_fd, &st) == 0 &&
	    st.st_dev == tgc_saved.socket_dev && st.st_ino == tgc_saved.socket_ino)
		close(tgc_saved.socket_fd);
	tgc_saved.socket_fd = -1;
}

static void in_child(void)
{
	int saved_errno = errno;

	close_connection();

	if (n_runs != 0) {
		if (!tgc_inherited)
			tgc_inherited =
				map_private(tgc_heap.geometry.n_pages * sizeof(*tgc_inherited));
		if (!tgc_inherited)
			die("fork: no memory for the child's copy");
		copy_all();
	}
	if (gate[0] >= 0) {
		close(gate[1]);
		close(gate[0]);
	}
	/* No span of ours so far: nothing to be copied if the child forks as well, before it
	 * has some. */
	atomic_store(&low_page, UINT64_MAX);
	atomic_store(&high_page, 0);
	tgc_dropin_lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
	pthread_setcancelstate(cancel_state, NULL);
	errno = saved_errno;
}

/* ---- what is known of inherited objects ---- */

size_t tgc_inherited_size(const void *p)
{
	uint64_t at = (uint64_t)((const uint8_t *)p - tgc_heap.data);
	uint64_t entry = tgc_inherited[at >> TGS_PAGE_SHIFT];
	unsigned class = tgs_entry_class(entry);

	if (entry == INNER || class >= TGS_CLASSES)
		return 0;
	if (class == 0)
		return (size_t)(tgs_entry_large_pages(entry) << TGS_PAGE_SHIFT);
	return tgs_classes[class].size;
}

bool tgc_is_strange(const void *p)
{
	uint64_t at = (uint64_t)((const uint8_t *)p - tgc_heap.data);
	unsigned owner = tgs_entry_owner(tgs_page_entry(&tgc_heap, at >> TGS_PAGE_SHIFT));
	uint32_t client =
		atomic_load_explicit(&tgc_heap.slot_owners[owner].client, memory_order_relaxed);

	if (!atomic_load_explicit(&tgc_process->attached, memory_order_relaxed))
		return true;
	return client != (tgc_process->client_id & (TGS_CLIENTS_MAX - 1)) + 1;
}

/* ---- a stack in the heap ---- */

struct detour {
	ucontext_t back, there;
	pid_t pid;
	int error;
};

static pid_t call_fork(void)
{
	pid_t (*function)(void) = (pid_t(*)(void))tgc_next_function("fork");

	if (!function) {
		errno = ENOSYS;
		return -1;
	}
	return function();
}

static void fork_there(unsigned high, unsigned low)
{
	struct detour *detour = (struct detour *)((uintptr_t)high << 32 | low);

	detour->pid = call_fork();
	detour->error = errno;
}

/* Until the child has its copies, both sides would run on the same stack: such a fork is made on
 * another one, which is private. */
static TGS_COLD pid_t fork_on_other_stack(void)
{
	uint8_t *stack = map_private(STACK_BYTES);
	struct detour *detour = (struct detour *)stack;
	pid_t pid;

	if (!stack || getcontext(&detour->there) < 0) {
		errno = ENOMEM;
		return -1;
	}
	detour->there.uc_stack.ss_sp = stack + sizeof(*detour);
	detour->there.uc_stack.ss_size = STACK_BYTES - sizeof(*detour);
	detour->there.uc_link = &detour->back;
	makecontext(&detour->there, (void (*)(void))fork_there, 2,
		    (unsigned)((uintptr_t)detour >> 32), (unsigned)(uintptr_t)detour);
	detour->error = 0;
	detour->pid = -1;
	(void)swapcontext(&detour->back, &detour->there);
	pid = detour->pid;
	errno = detour->error;
	munmap(stack, STACK_BYTES);
	return pid;
}

TG_API pid_t fork(void)
{
	return tgc_in_heap(__builtin_frame_address(0)) ? fork_on_other_stack() : call_fork();
}

/* Runs before all other constructors (the library is linked with -z initfirst).  So of all fork
 * handlers ours come last before the fork, when everybody else has put his objects in order, and
 * first after it: nobody's runs in a child that still shares its parent's objects. */
static __attribute__((constructor)) void watch_forks(void)
{
	static bool done;

	if (!done && pthread_atfork(before_fork, in_parent, in_child) != 0)
		die("no memory for a fork handler");
	done = true;
}

void tgc_fork_init(void)
{
	watch_forks(); /* if something has allocated memory even before that */
}

int tgc_fork_ready(void)
{
	/* Two runs that are not one have a page between them. */
	runs = map_private((tgc_heap.geometry.n_pages / 2 + 1) * sizeof(*runs));
	return runs ? 0 : -ENOMEM;
}
