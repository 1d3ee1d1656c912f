/* swap.pml - tg_swap as one detectable step: link, publication and free move together, whoever is killed where.
 *
 * Covers client/swap.c (swap_noted, retire, note of the step), shm/link.c (tgs_link_swing, tgs_link_help_inside) and
 * shm/settle.c (settle_swap, retire, unpublish, the order of tgs_settle_slot), names as there.
 *
 *      head -> X        X.next -> Y        C: T's own, private; D: U's own; Z: stands in T's buffer from an earlier tg_free
 *
 *   thread T     tg_swap(&X.next, Y, C, GIVE|RETIRE); stopped or killed at any instruction
 *   thread U     may swing X.next, too (to D); then takes X out: tg_swap(&head, X, X.next, RETIRE); killed likewise
 *   owner        harvests what is freed and gives it to somebody else (W), who writes what he likes in it
 *   daemon       settles T and U, in any order, some time after they stopped; killed at any instruction up to RKILLS times and
 *                started again; then reclaims: what is theirs and not published is freed
 *
 * Properties: an object is freed once, never while a link leads to it, and never when it has been given to W (FREED_ONCE); at the
 * end an object is reachable, or free, or W's: just one of these, and published exactly when reachable (ONE_PLACE).
 *
 * Variants: -DKEEP=1: without reclaim, what T or U had and never gave stays theirs; -DU_DIES=0: only T is killed;
 * -DBUFFERED=0: without Z; -DEXACT=1: tg_swap_seen, and X is freed while T may still try: U waits for nobody, but first swings
 * X.next to a mark, retiring what was there (-DSEAL=0: it does not, and what T gives goes down with X).
 *
 * Bounds: one swap by T, two or three by U, five objects of which each is reused once.  A free of a noted place is atomic here
 * with the knowledge that it took place, as is help: free.pml looks into those.  Assumed of the program, as of any memory: X is
 * not freed while somebody who still runs may swing X.next (U waits until T is past its swing, or stopped for good), but for
 * EXACT=1; and nobody writes into X by other means before it is free.
 * The rules, each dropped by -DNAME=0:
 *   HELP           help before overwriting                    HELP_AT_FREE   tell who swings inside before freeing
 *   HELP_AT_SETTLE so does the recoverer that retires         PENDING_FIRST  a place in the buffer is made before the note
 *   NOTE_FIRST     the note is there before the publication   PUBLISH_FIRST  published before the swing
 *   UNDO           the recoverer makes private again          RETIRE_NOTED   the free is in the buffer before the note goes
 *   SETTLE_NOTED   the same for the recoverer
 *   STRIKE_LAST    a free of an own object is struck off the buffer after `taken` is clear (KEEP=1 shows it)
 */
#ifndef HELP
#define HELP 1
#endif
#ifndef HELP_AT_FREE
#define HELP_AT_FREE 1
#endif
#ifndef HELP_AT_SETTLE
#define HELP_AT_SETTLE 1
#endif
#ifndef PENDING_FIRST
#define PENDING_FIRST 1
#endif
#ifndef NOTE_FIRST
#define NOTE_FIRST 1
#endif
#ifndef PUBLISH_FIRST
#define PUBLISH_FIRST 1
#endif
#ifndef UNDO
#define UNDO 1
#endif
#ifndef RETIRE_NOTED
#define RETIRE_NOTED 1
#endif
#ifndef SETTLE_NOTED
#define SETTLE_NOTED 1
#endif
#ifndef STRIKE_LAST
#define STRIKE_LAST 1
#endif
#ifndef RKILLS
#define RKILLS 1
#endif
#ifndef U_DIES
#define U_DIES 1
#endif
#ifndef BUFFERED
#define BUFFERED 1
#endif
#ifndef EXACT
#define EXACT 0
#endif
#ifndef SEAL
#define SEAL 1
#endif
#ifndef KEEP
#define KEEP 0
#endif

/* Objects. */
#define NONE 0
#define X    1
#define Y    2
#define C    3
#define D    4
#define Z    5
#define END  6
#define MARK 6 /* a link leads nowhere any more */

/* Thread slots, and W. */
#define NOBODY 0
#define T      1
#define U      2
#define W      3

/* Links. */
#define HEAD   0
#define X_NEXT 1

/* Steps: what is noted. */
#define FREE 1
#define SWAP 2

bool taken[END], published[END], remote[END];
byte link[2], tag_slot[2], tag_seq[2];

/* Slots. */
byte step_kind[3], step_link[3], step_seq[3], step_old[3], step_new[3], mark[3];
bool step_give[3];
byte pending[3]; /* the object whose free waits; one place */
bool took[3];    /* the free noted took place: free.pml shows that the recoverer can tell */

/* Not in the program. */
byte home[END];   /* whose span it lies in */
bool reused[END]; /* W has it now */
bool private[END + 1]; /* nobody but its maker has ever had it */
bool stopped[3], recovered[3], rkill, t_past, u_done;
byte kills;

#define REACHABLE(o) (link[HEAD] == (o) || (link[HEAD] == X && !reused[X] && link[X_NEXT] == (o)))
#define SAME(at)     (link[at] == v_to && tag_slot[at] == v_slot && tag_seq[at] == v_seq)

inline load(at)
{
	d_step {
		v_to = link[at];
		v_slot = tag_slot[at];
		v_seq = tag_seq[at]
	}
}

inline forget()
{
	v_to = 0;
	v_slot = 0;
	v_seq = 0
}

/* tgs_step_help, for the value last loaded from link `at`. */
inline tgs_step_help(at)
{
	d_step {
		if
		:: v_slot != NOBODY && step_kind[v_slot] == SWAP && step_link[v_slot] == at && SAME(at) &&
		   step_seq[v_slot] == v_seq && mark[v_slot] < v_seq -> mark[v_slot] = v_seq
		:: else
		fi
	}
}

inline tgs_link_help_inside(o)
{
	if
	:: o == X && ((step_kind[T] == SWAP && step_link[T] == X_NEXT) ||
		      (step_kind[U] == SWAP && step_link[U] == X_NEXT)) ->
		do
		:: load(X_NEXT);
			tgs_step_help(X_NEXT);
			if
			:: d_step { SAME(X_NEXT) -> forget() } -> break
			:: else
			fi
		od
	:: else
	fi
}

/* A free becomes true: the remote bit, or for an object of its own span the taken bit that goes. */
#define FREED_ONCE(o) (!REACHABLE(o) && !reused[o] && !remote[o])

/* Applies the place of slot s as a step. */
inline tgs_pending_apply(s)
{
	if
	:: pending[s] != NONE ->
		d_step {
			took[s] = false;
			step_kind[s] = FREE;
			step_seq[s]++
		};
		d_step {
			assert(FREED_ONCE(pending[s]));
			assert(taken[pending[s]] || home[pending[s]] == s);
			remote[pending[s]] = true;
			took[s] = true
		};
		pending[s] = NONE;
		d_step {
			took[s] = false;
			step_kind[s] = 0
		}
	:: else
	fi
}

/* The noted free of object o by thread s goes into effect. */
inline free_noted(s, o)
{
	if
	:: home[o] == s ->
		published[o] = false;
		if
		:: STRIKE_LAST ->
			d_step {
				assert(taken[o] && FREED_ONCE(o));
				taken[o] = false
			};
			pending[s] = NONE
		:: else ->
			pending[s] = NONE;
			taken[o] = false
		fi
	:: else -> tgs_pending_apply(s)
	fi
}

/* tg_link_look. */
inline look(at)
{
	d_step {
		seen_to = link[at];
		seen_slot = tag_slot[at];
		seen_seq = tag_seq[at]
	}
}

#define IS_SEEN (v_to == seen_to && v_slot == seen_slot && v_seq == seen_seq)

/* give: `new` is private to s before.  exact: tg_swap_seen. */
inline tg_swap(s, at, old, new, give, exact)
{
	if
	:: PENDING_FIRST -> tgs_pending_apply(s)
	:: else
	fi;
	if
	:: !NOTE_FIRST && give -> published[new] = true
	:: else
	fi;
	d_step {
		step_seq[s]++;
		step_link[s] = at;
		step_old[s] = old;
		step_new[s] = new;
		step_give[s] = give
	};
	step_kind[s] = SWAP;
	if
	:: NOTE_FIRST && PUBLISH_FIRST && give -> published[new] = true
	:: else
	fi;
	do
	:: load(at);
		if
		:: d_step { v_to != old || (exact && !IS_SEEN) ->
				swung = false;
				t_past = (t_past || s == T);
				forget()
			} -> break
		:: else
		fi;
		if
		:: HELP -> tgs_step_help(at)
		:: else
		fi;
		d_step {
			swung = SAME(at);
			if
			:: swung ->
				link[at] = new;
				private[new] = false;
				tag_slot[at] = s;
				tag_seq[at] = step_seq[s];
				t_past = (t_past || s == T)
			:: else
			fi;
			forget()
		};
		if
		:: swung -> break
		:: else
		fi
	od;
	if
	:: swung ->
		if
		:: !PUBLISH_FIRST && give -> published[new] = true
		:: else
		fi;
		if
		:: HELP_AT_FREE -> tgs_link_help_inside(old)
		:: else
		fi;
		if
		:: !PENDING_FIRST -> tgs_pending_apply(s)
		:: else
		fi;
		if
		:: RETIRE_NOTED -> pending[s] = old; step_kind[s] = 0
		:: else -> step_kind[s] = 0; pending[s] = old
		fi;
		free_noted(s, old)
	:: else ->
		if
		:: give -> published[new] = false
		:: else
		fi;
		step_kind[s] = 0
	fi
}

proctype thread_T()
{
	byte v_to, v_slot, v_seq, seen_to, seen_slot, seen_seq;
	bool swung;

	{
		if
		:: EXACT -> look(X_NEXT); (seen_to == Y)
		:: else
		fi;
		tg_swap(T, X_NEXT, Y, C, true, EXACT);
		if
		:: !swung -> d_step { assert(taken[C] && !published[C] && !REACHABLE(C)); taken[C] = false; private[C] = false }
		:: else
		fi
	} unless { stopped[T] }
}

proctype thread_U()
{
	byte v_to, v_slot, v_seq, seen_to, seen_slot, seen_seq;
	bool swung;

	{
		if
		:: look(X_NEXT);
			tg_swap(U, X_NEXT, seen_to, D, true, EXACT);
			if
			:: !swung -> d_step { assert(taken[D] && !published[D] && !REACHABLE(D)); taken[D] = false; private[D] = false }
			:: else
			fi
		:: true
		fi;
		if
		:: !EXACT -> (t_past || stopped[T])
		:: EXACT && SEAL ->
			do
			:: look(X_NEXT);
				tg_swap(U, X_NEXT, seen_to, MARK, false, EXACT);
				if
				:: swung -> break
				:: else
				fi
			od
		:: else
		fi;
		look(X_NEXT);
		tg_swap(U, HEAD, X, (EXACT && SEAL -> NONE : seen_to), false, false);
		assert(swung);
		u_done = true
	} unless { stopped[U] }
}

/* Harvests and gives out again.  The new holder's bytes are anything; no tag of a thread that still runs or is not yet settled
 * is among them. */
proctype owner()
{
	byte o;

end:	do
	:: d_step {
			remote[X] || remote[Y] || remote[C] || remote[D] || remote[Z] ->
			o = (remote[X] -> X : (remote[Y] -> Y : (remote[C] -> C : (remote[D] -> D : Z))));
			remote[o] = false;
			published[o] = false;
			taken[o] = true;
			reused[o] = true;
			if
			:: o == X ->
				link[X_NEXT] = NONE;
				tag_slot[X_NEXT] = NOBODY;
				tag_seq[X_NEXT] = 0
			:: else
			fi;
			o = 0
		}
	od
}

#define LIVE(o) (taken[o] && !remote[o])

inline settle_swap(s)
{
	load(step_link[s]);
	v_to = (mark[s] >= step_seq[s]);
	if
	:: v_to || (v_slot == s && v_seq == step_seq[s]) ->
		d_step { forget() };
		if
		:: LIVE(step_old[s]) ->
			if
			:: HELP_AT_SETTLE -> tgs_link_help_inside(step_old[s])
			:: else
			fi;
			if
			:: !SETTLE_NOTED -> step_kind[s] = 0
			:: else
			fi;
			pending[s] = step_old[s]
		:: else
		fi
	:: else ->
		d_step { forget() };
		if
		:: UNDO && step_give[s] -> published[step_new[s]] = false
		:: else
		fi
	fi
}

inline tgs_settle_slot(s)
{
	if
	:: step_kind[s] == SWAP -> settle_swap(s)
	:: step_kind[s] == FREE && took[s] -> pending[s] = NONE
	:: else
	fi;
	step_kind[s] = 0;
	tgs_pending_apply(s)
}

/* kill_unpublished: what lies in a span of the dead, is nobody else's by now, and is not published. */
inline reclaim(s)
{
	d_step {
		do
		:: o < END ->
			if
			:: !KEEP && home[o] == s && LIVE(o) && !published[o] && !reused[o] ->
				assert(!REACHABLE(o));
				taken[o] = false
			:: else
			fi;
			o++
		:: else -> break
		od;
		o = 0;
		recovered[s] = true
	}
}

proctype daemon()
{
	byte v_to, v_slot, v_seq, o;

again:	{
		do
		:: stopped[T] && !recovered[T] -> tgs_settle_slot(T); reclaim(T)
		:: stopped[U] && !recovered[U] -> tgs_settle_slot(U); reclaim(U)
		:: recovered[T] && recovered[U] -> break
		od
	} unless { rkill };
	if
	:: rkill ->
		d_step {
			rkill = false;
			o = 0;
			forget()
		};
		goto again
	:: else
	fi
}

init {
	byte o;

	atomic {
		d_step {
			link[HEAD] = X;
			link[X_NEXT] = Y;
			o = X;
			do
			:: o < END ->
				taken[o] = true;
				published[o] = (o == X || o == Y || o == Z);
				home[o] = U;
				private[o] = (o == C || o == D);
				o++
			:: else -> break
			od;
			home[C] = T;
			pending[T] = (BUFFERED -> Z : NONE);
			taken[Z] = BUFFERED;
			published[Z] = BUFFERED;
			home[X] = NOBODY;
			o = 0
		};
		if
		:: home[Y] = T
		:: home[Y] = NOBODY
		fi;
		home[Z] = NOBODY;
		run thread_T();
		run thread_U();
		run owner();
		run daemon()
	};
	do
	:: d_step { !stopped[T] -> stopped[T] = true }
	:: d_step { !stopped[U] && (U_DIES || u_done) -> stopped[U] = true }
	:: d_step { (stopped[T] || stopped[U]) && !(recovered[T] && recovered[U]) && !rkill && kills < RKILLS ->
			rkill = true;
			kills++
		}
	:: timeout -> break
	od;
	assert(recovered[T] && recovered[U]);
	o = X;
	do
	:: o < END ->
		assert(!remote[o]);
		if
		:: REACHABLE(o) -> assert(taken[o] && published[o] && !reused[o])
		:: else -> assert(taken[o] == (reused[o] || (KEEP && private[o])) && !published[o])
		fi;
		o++
	:: else -> break
	od
}
