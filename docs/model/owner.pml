/* owner.pml - who holds a span, and how he hears of frees in it: page map, hints, harvest.
 *
 * Covers tgs_remote_notify (shm/remote.c), tgd_central_adopt, grant and the sweep (daemon/central.c), tgc_cache_drain and
 * tgc_span_add (client/cache.c), settle_free (shm/settle.c), names as there.
 *
 *   thread F     frees two objects, one after the other: remote bit, then tgs_remote_notify; killed at any instruction: then
 *                its recoverer finds the free that took place and notifies
 *   thread A     holds the span at first; drains what its hints say; killed at any instruction
 *   daemon       adopts A's span, sweeps by central's hints, may grant the span to B; with -DDKILLS=1 it is killed at any
 *                instruction, once, and another one takes over
 *   thread B     harvests when it hears of the grant, then drains what its hints say
 *
 * Properties: NOTHING_LOST: at rest no remote bit is left of which the holder has neither a hint nor a harvest to come.
 * ONE_HARVESTER: nobody changes `taken` of a span while another one is about to.
 *
 * The daemon's store of the page map entry goes through a store buffer, as on a real processor: others see it when it leaves
 * the buffer, any time later, at the latest at the fence (adopt) or at the system call that sends the grant.  All else is
 * sequentially consistent.
 * Bounds: one span, two frees (one with DKILLS), one adoption, one grant.
 * The rules, each dropped by -DNAME=0:
 *   FENCE          a fence between move and harvest               MOVE_FIRST     move, then harvest
 *   GRANT_HARVEST  the new holder harvests what it is granted      HINT_LAST      the hint is set after the remote bit
 *   CLEAR_FIRST    a hint is cleared before its harvest            SETTLE_NOTIFY  the recoverer of F notifies
 *   READ_OWNER     the owner is looked up after the remote bit     TAKEOVER_SWEEP a new daemon harvests all that is central's
 * -DREREAD=0 drops the second look at the owner in tgs_remote_notify: it is not needed for this property, as every new holder
 * harvests after the move; it spares a free the wait until then.
 */
#ifndef FENCE
#define FENCE 1
#endif
#ifndef MOVE_FIRST
#define MOVE_FIRST 1
#endif
#ifndef GRANT_HARVEST
#define GRANT_HARVEST 1
#endif
#ifndef HINT_LAST
#define HINT_LAST 1
#endif
#ifndef CLEAR_FIRST
#define CLEAR_FIRST 1
#endif
#ifndef SETTLE_NOTIFY
#define SETTLE_NOTIFY 1
#endif
#ifndef READ_OWNER
#define READ_OWNER 1
#endif
#ifndef REREAD
#define REREAD 1
#endif

#ifndef TAKEOVER_SWEEP
#define TAKEOVER_SWEEP 1
#endif
#ifndef DKILLS
#define DKILLS 0
#endif
#ifndef FREES
#define FREES (2 - DKILLS)
#endif

#define NONE    0
#define CENTRAL 1
#define A       2
#define B       3

byte page_map = A;
byte store_buffer; /* the daemon's; NONE: empty */
bool dirty[4];     /* hint of each holder */
byte remote;       /* bits not yet harvested */
byte taken = 3;

byte step;      /* F's slot: the bit whose free is noted */
byte granted;   /* the message to B */
byte harvester; /* not in the program: who is in a harvest */
bool dead_A, dead_F, settled_F, killed;

inline tgs_remote_notify()
{
	seen = NONE;
	do
	:: owner = page_map;
		if
		:: owner == seen -> break
		:: else
		fi;
		dirty[owner] = true;
		seen = owner;
		if
		:: !REREAD -> break
		:: else
		fi
	od;
	owner = NONE;
	seen = NONE
}

/* Remote bits are read; taken is changed; the bits are cleared if they still are the same. */
inline harvest(self)
{
	d_step {
		assert(harvester == NONE || (harvester == A && dead_A)); /* ONE_HARVESTER */
		harvester = self
	};
	do
	:: bits = remote;
		if
		:: bits == 0 -> break
		:: else
		fi;
		taken = taken & ~bits;
		d_step {
			if
			:: remote == bits -> remote = 0
			:: else
			fi
		}
	od;
	harvester = NONE
}

/* tgc_cache_drain, the sweep. */
inline drain(self)
{
	if
	:: CLEAR_FIRST -> dirty[self] = false; harvest(self)
	:: else -> harvest(self); dirty[self] = false
	fi
}

inline move(to)
{
	store_buffer == NONE;
	store_buffer = to
}

#define DRAINED (store_buffer == NONE)

active proctype processor()
{
end:	do
	:: d_step { store_buffer != NONE -> page_map = store_buffer; store_buffer = NONE }
	od
}

inline free_one(which)
{
	step = which;
	if
	:: !HINT_LAST -> tgs_remote_notify()
	:: else
	fi;
	if
	:: !READ_OWNER -> owner = page_map
	:: else
	fi;
	remote = remote | which;
	if
	:: !HINT_LAST -> skip
	:: HINT_LAST && READ_OWNER -> tgs_remote_notify()
	:: else -> dirty[owner] = true; owner = NONE
	fi;
	step = 0
}

active proctype thread_F()
{
	byte owner, seen;

	{
		free_one(1);
		if
		:: FREES == 2 -> free_one(2)
		:: else
		fi
	} unless { dead_F }
}

/* Whether the step took place is free.pml's business: here the bit itself tells, or that it has been harvested. */
active proctype recoverer_of_F()
{
	byte owner, seen;

	dead_F = true;
	if
	:: step == 0 -> skip
	:: step != 0 && ((remote & step) || !(taken & step)) ->
		if
		:: SETTLE_NOTIFY -> tgs_remote_notify()
		:: else
		fi
	:: else -> free_one(step)
	fi;
	step = 0;
	settled_F = true
}

active proctype thread_A()
{
	byte bits;

	{
end:		do
		:: dirty[A] -> drain(A)
		od
	} unless { dead_A }
}

/* tgd_central_adopt. */
inline adopt()
{
	if
	:: MOVE_FIRST ->
		move(CENTRAL);
		if
		:: FENCE -> DRAINED
		:: else
		fi;
		harvest(CENTRAL)
	:: else ->
		harvest(CENTRAL);
		move(CENTRAL);
		DRAINED
	fi
}

/* What the map says is all that a daemon knows that takes over from a dead one (daemon/takeover.c). */
inline serve()
{
	if
	:: page_map == A -> adopt()
	:: page_map == CENTRAL && TAKEOVER_SWEEP -> harvest(CENTRAL)
	:: page_map == B -> granted = B /* B asks what it holds (client/agree.c) */
	:: else
	fi;
end:	do
	:: dirty[CENTRAL] -> /* tgd_central_sweep; sweep_span leaves alone what is not central's any more */
		if
		:: granted == NONE -> drain(CENTRAL)
		:: else -> dirty[CENTRAL] = false
		fi
	:: granted == NONE && will_grant ->
		harvest(CENTRAL);
		move(B);
		DRAINED;
		granted = B
	od
}

active proctype daemon()
{
	byte bits;
	bool will_grant;

	if
	:: true
	:: will_grant = true
	fi;
	dead_A = true;
	{ serve() } unless { killed };
	/* The store of a process that has ended is seen by all. */
	d_step {
		DRAINED;
		bits = 0;
		harvester = (harvester == CENTRAL -> NONE : harvester)
	};
	killed = false;
	serve()
}

active proctype thread_B()
{
	byte bits;

end:	granted == B;
	if
	:: GRANT_HARVEST -> harvest(B)
	:: else
	fi;
end2:	do
	:: dirty[B] -> drain(B)
	od
}

init {
	if
	:: DKILLS && dead_A -> killed = true; timeout
	:: timeout
	fi;
	assert(settled_F && step == 0);
	assert(remote == 0) /* NOTHING_LOST: all who have a hint have harvested */
}
