/* free.pml - foreign frees: a detectable step on a remote word, against its harvest, reuse and recovery.
 *
 * Covers shm/step.c (tgs_step_begin, tgs_step_help, tgs_step_took_place), shm/remote.c (swap_in, harvest_word,
 * tgs_pending_apply) and shm/settle.c (settle_free, tgs_settle_slot), names as there.
 *
 *   thread T     buffers frees and applies them; killed at any instruction
 *   thread U     frees neighbours of T's objects; overwrites T's tag, so it helps
 *   owner        harvests, gives what was freed out again; may die in a harvest (another one then starts it anew)
 *   recoverer    settles T's slot once T is dead; killed at any instruction up to RKILLS times and started again
 *
 * Properties: an object is freed once for each time it was given out (FREED_ONCE: the bit of somebody else's incarnation is
 * never set); at the end nothing is left in buffer, remote words or `taken` of what was freed (NOTHING_LOST).
 *
 * Bounds: three objects in two remote words, given out GIVEN times in all beyond the first; numbers in tags have SEQ_BITS
 * bits, so that they wrap, but the compare-and-swap compares whole numbers: nobody sleeps between help and swap through
 * a full turn of the numbers (-DFULL_TURN=1: he may; then a free can be lost or doubled, docs/model/README.md).
 * The rules, each dropped by -DNAME=0:
 *   HELP      help before overwriting                     MAXMARK   the mark only rises
 *   ORDER     the recoverer reads word, then mark         SKIP      no number whose tag stands in the word
 *   REREAD    a helper reads the word again after the note
 *   SEQ_TWICE a helper reads the number before and after the note (only wrapping makes it necessary)
 *   STRIKE    the recoverer strikes a free that took place off the buffer
 *   CLEAN     a place of the buffer is emptied before the note is cleared
 * Sizes: see the table that tools/check-model prints.
 */
#ifndef HELP
#define HELP 1
#endif
#ifndef MAXMARK
#define MAXMARK 1
#endif
#ifndef ORDER
#define ORDER 1
#endif
#ifndef SKIP
#define SKIP 1
#endif
#ifndef REREAD
#define REREAD 1
#endif
#ifndef SEQ_TWICE
#define SEQ_TWICE 1
#endif
#ifndef STRIKE
#define STRIKE 1
#endif
#ifndef CLEAN
#define CLEAN 1
#endif
#ifndef FULL_TURN
#define FULL_TURN 0
#endif
#ifndef SEQ_BITS
#define SEQ_BITS 1
#endif
#ifndef WORDS
#define WORDS 1
#endif
#ifndef GIVEN
#define GIVEN 2
#endif
#ifndef RKILLS
#define RKILLS 1
#endif

#define NOBODY 0
#define T      1
#define U      2
#define BUFFER 3 /* T has called tg_free */

#define LOW(seq) ((seq) & ((1 << SEQ_BITS) - 1))

/* Which bit an object is: 0 is the first of word 0, 2 the first of word 1, 1 the second of the last word. */
#define WORD_OF(o) ((o) == 0 -> 0 : ((o) == 1 -> WORDS - 1 : 1))
#define BIT_OF(o)  ((o) == 1 -> 2 : 1)
#define IN(o, w, mask) (WORD_OF(o) == (w) && ((mask) & BIT_OF(o)))

/* A remote word: bits, and the tag: slot and number (what is above the low bits is not in the real word). */
byte bits[2], tag_slot[2], tag_seq[2];
bool taken[3];

/* T's slot. */
byte step_word; /* word + 1; 0: no step */
byte step_seq, mark;
byte pending_word, pending_mask;

/* Not in the program: whose business it is to free the object that lies there now. */
byte holder[3];
byte given;

bool dead, recovered, rkill;
byte kills;

#define SAME(w) (bits[w] == v_bits && tag_slot[w] == v_slot && \
		 (FULL_TURN -> LOW(tag_seq[w]) == LOW(v_seq) : tag_seq[w] == v_seq))

inline load(w)
{
	d_step {
		v_bits = bits[w];
		v_slot = tag_slot[w];
		v_seq = tag_seq[w]
	}
}

/* Values that nobody looks at any more must not make states differ. */
inline forget()
{
	v_bits = 0;
	v_slot = 0;
	v_seq = 0;
	seq = 0
}

inline free_takes_effect(o, from)
{
	assert(taken[o] && holder[o] == from); /* FREED_ONCE */
	holder[o] = NOBODY
}

inline cas(w, self, fresh, from, number)
{
	d_step {
		ok = SAME(w);
		if
		:: ok ->
			bits[w] = v_bits | fresh;
			tag_slot[w] = self;
			tag_seq[w] = number;
			if
			:: IN(0, w, fresh) -> free_takes_effect(0, from)
			:: else
			fi;
			if
			:: IN(1, w, fresh) -> free_takes_effect(1, from)
			:: else
			fi;
			if
			:: IN(2, w, fresh) -> free_takes_effect(2, from)
			:: else
			fi
		:: else
		fi;
		forget()
	}
}

/* Sets ok: false if the word has changed.  U is never dead, so there is no need to help it. */
inline tgs_step_help(w)
{
	ok = true;
	if
	:: HELP && v_slot == T ->
		if
		:: SEQ_TWICE -> seq = step_seq
		:: else
		fi;
		if
		:: step_word != w + 1 -> skip /* it has gone past this step */
		:: else ->
			if
			:: !SEQ_TWICE -> seq = step_seq
			:: SEQ_TWICE && seq != step_seq -> ok = false
			:: else
			fi;
			if
			:: ok && REREAD && !SAME(w) -> ok = false
			:: else
			fi;
			d_step {
				if
				:: ok && LOW(seq) == LOW(v_seq) && (mark < seq || !MAXMARK) -> mark = seq
				:: else
				fi
			}
		fi
	:: else
	fi;
	seq = 0
}

inline tgs_step_begin(w)
{
	if
	:: SKIP && tag_slot[w] == T && LOW(tag_seq[w]) == LOW(step_seq + 1) ->
		step_seq = step_seq + 2
	:: else -> step_seq++
	fi;
	step_word = w + 1
}

inline swap_in(w, self, mask, from, number)
{
	do
	:: load(w);
		assert((mask & v_bits) == 0);
		tgs_step_help(w);
		if
		:: ok ->
			cas(w, self, mask, from, number);
			if
			:: ok -> ok = false; break
			:: else
			fi
		:: else
		fi
	od
}

inline tgs_pending_apply()
{
	if
	:: pending_mask != 0 ->
		tgs_step_begin(pending_word);
		swap_in(pending_word, T, pending_mask, BUFFER, step_seq);
		if
		:: CLEAN -> pending_mask = 0; step_word = 0
		:: else -> step_word = 0; pending_mask = 0
		fi
	:: else
	fi
}

/* tg_free by T: the free stands in the buffer. */
inline hold_back(o)
{
	holder[o] = BUFFER;
	pending_word = WORD_OF(o);
	pending_mask = BIT_OF(o)
}

proctype thread_T()
{
	byte v_bits, v_slot, v_seq, seq;
	bool ok;

	{
end:		do
		:: d_step { holder[0] == T -> hold_back(0) }; tgs_pending_apply()
		:: d_step { holder[1] == T -> hold_back(1) }; tgs_pending_apply()
		:: d_step { holder[2] == T && (WORDS == 1 || (holder[0] != T && holder[1] != T)) -> hold_back(2) };
			tgs_pending_apply()
		od
	} unless { dead }
}

proctype thread_U()
{
	byte v_bits, v_slot, v_seq, seq;
	bool ok;

end:	do
	:: holder[0] == U -> swap_in(0, U, 1, U, 0)
	:: holder[1] == U -> swap_in(0, U, 2, U, 0)
	od
}

/* tg_malloc: the owner takes the slot; who frees it is the program's business. */
inline give_out(o)
{
	if
	:: !taken[o] && given < GIVEN ->
		given++;
		taken[o] = true;
		holder[o] = (WORDS == 1 && (dead || o == 1) -> U : T)
	:: else
	fi
}

/* Somebody who dies after the change of taken leaves the bits: the next one begins with a harvest, as here. */
inline harvest_word(w)
{
	do
	:: load(w);
		if
		:: v_bits == 0 -> break
		:: else
		fi;
		tgs_step_help(w);
		if
		:: ok ->
			d_step {
				if
				:: IN(0, w, v_bits) -> taken[0] = false
				:: else
				fi;
				if
				:: IN(1, w, v_bits) -> taken[1] = false
				:: else
				fi;
				if
				:: IN(2, w, v_bits) -> taken[2] = false
				:: else
				fi
			};
			d_step {
				ok = SAME(w);
				if
				:: ok ->
					bits[w] = 0;
					tag_slot[w] = 0;
					tag_seq[w] = 0
				:: else
				fi;
				forget()
			};
			if
			:: ok -> break
			:: true
			fi
		:: else
		fi
	od;
	ok = false
}

proctype owner_of_0()
{
	byte v_bits, v_slot, v_seq, seq;
	bool ok;

end:	do
	:: bits[0] != 0 ->
		harvest_word(0);
		d_step {
			give_out(0);
			if
			:: WORDS == 1 -> give_out(1)
			:: else
			fi
		}
	od
}

proctype owner_of_1()
{
	byte v_bits, v_slot, v_seq, seq;
	bool ok;

end:	do
	:: bits[1] != 0 ->
		harvest_word(1);
		d_step {
			give_out(1);
			give_out(2)
		}
	od
}

inline tgs_settle_slot()
{
	if
	:: step_word != 0 ->
		if
		:: ORDER ->
			load(step_word - 1);
			seq = mark
		:: else ->
			seq = mark;
			load(step_word - 1)
		fi;
		if
		:: STRIKE && (seq >= step_seq || (v_slot == T && LOW(v_seq) == LOW(step_seq))) ->
			pending_mask = 0
		:: else
		fi;
		d_step {
			step_word = 0;
			forget()
		}
	:: else
	fi;
	tgs_pending_apply();
	recovered = true
}

proctype recoverer()
{
	byte v_bits, v_slot, v_seq, seq;
	bool ok;

	dead = true;
again:	{
		tgs_settle_slot()
	} unless { rkill };
	if
	:: rkill ->
		d_step {
			rkill = false;
			ok = false;
			forget()
		};
		goto again
	:: else
	fi
}

init {
	atomic {
		holder[0] = T;
		taken[0] = true;
		taken[1] = true;
		holder[1] = (WORDS == 1 -> U : T);
		holder[2] = (WORDS == 2 -> T : NOBODY);
		taken[2] = (WORDS == 2);
		run thread_T();
		run owner_of_0();
		if
		:: WORDS == 1 -> run thread_U()
		:: else -> run owner_of_1()
		fi;
		run recoverer()
	};
	do
	:: d_step { dead && !recovered && !rkill && kills < RKILLS -> rkill = true; kills++ }
	:: timeout -> break
	od;
	/* Everything has come to rest.  What T had and had not called tg_free for is still out; the rest is free. */
	assert(recovered && pending_mask == 0 && step_word == 0);
	assert(bits[0] == 0 && bits[1] == 0);
	assert(taken[0] == (holder[0] == T) && taken[1] == (holder[1] == T) &&
	       taken[2] == (holder[2] == T)) /* NOTHING_LOST */
}
