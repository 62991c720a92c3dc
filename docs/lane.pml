/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The slot protocol of a lane (ipc/lane.h, ipc/lane.c), with the broker's part (broker/lanes.c), for spin: `make check-model`.
 * Steps and names are those of the C code. Each step here is one access to shared memory there, or one system call; memory is
 * sequentially consistent (the accesses that must be are seq_cst in the C code). A worker and a client can end between any two steps:
 * "unless" is the SIGKILL.
 *
 * Safety, by assertions: a request is answered at most once, its answer is its own, a worker copies out the request that it
 * has claimed, a request that was answered never runs again, a slot is not used again before its answer was taken. No lost
 * wake-up: spin finds no state in which nobody moves and a client waits. Liveness: with fair scheduling every client
 * gets all its answers, whoever is killed (ltl served).
 *
 * Sizes: SLOTS clients' threads with a slot each, SEQS requests a slot, WORKERS, DEATHS of workers, RETRY 1: the broker lets the next
 * worker repeat what a dead one held, CANCEL 1: clients ask the broker to cancel, CLIENT_DIES 1: a client may end anywhere.
 * FIRST_LOOK_ONLY 1 takes out claim_slot()'s second look, NO_ROUSE 1 pb_lane_rouse(), CANCEL_BLINDLY 1 the looks of
 * pb_lane_claim_unserved(): then spin must find a fault, and tools/check-model.sh makes sure that it does. It had found the last two in the C code.
 */
#ifndef SLOTS
#define SLOTS 1
#endif
#ifndef SEQS
#define SEQS 2
#endif
#ifndef WORKERS
#define WORKERS 2
#endif
#ifndef DEATHS
#define DEATHS 1
#endif
#ifndef RETRY
#define RETRY 0
#endif
#ifndef CANCEL
#define CANCEL 0
#endif
#ifndef CLIENT_DIES
#define CLIENT_DIES 0
#endif
#ifndef FIRST_LOOK_ONLY
#define FIRST_LOOK_ONLY 0
#endif
#ifndef NO_ROUSE
#define NO_ROUSE 0
#endif

#ifndef CANCEL_BLINDLY
#define CANCEL_BLINDLY 0
#endif

#define NOBODY 0 /* claims hold the number of the worker + 1 */
#define RESULT 1 /* kinds of replies */
#define FAILURE 2

/* struct pb_lane_up_slot, pb_lane_down_slot */
typedef slot_t {
	byte seq;
	byte waiting;
	byte request;	   /* the payload: which request it is of */
	byte claim_seq;	   /* claim: one 64-bit word */
	byte claim_worker;
	byte done;
	byte reply;	   /* the payload: which request it answers */
	byte reply_kind;
};
slot_t slot[SLOTS];
bit sleepers[WORKERS];	 /* of struct pb_lane_down_head */
/* The bells count; a worker compares them with what it saw last. Here: what has rung since worker w looked. */
bit bell[WORKERS], board_bell[WORKERS];

/* The kernel's: who sleeps on which futex. */
bit worker_asleep[WORKERS];
bit client_asleep[SLOTS];

/* The world. */
bit alive[WORKERS], reaped[WORKERS];
bit client_alive[SLOTS], client_ended[SLOTS];
byte deaths;
bit cancel_wanted[SLOTS];

/* For the assertions: requests that were answered, and taken. */
byte answers[SLOTS];

inline wake_client(s) { client_asleep[s] = 0 }
inline ring_bell() { atomic { bell[0] = 1; bell[WORKERS - 1] = 1 } }
inline ring_board() { atomic { board_bell[0] = 1; board_bell[WORKERS - 1] = 1 } }
inline wake_workers() { atomic { worker_asleep[0] = 0; worker_asleep[WORKERS - 1] = 0 } }

/* FUTEX_WAKE, 1: any one that sleeps. */
inline wake_one() {
	if
	:: atomic { worker_asleep[0] -> worker_asleep[0] = 0 }
	:: atomic { worker_asleep[WORKERS - 1] -> worker_asleep[WORKERS - 1] = 0 }
	:: else
	fi
}

/* pb_lane_reply(): len and payload first. */
inline lane_reply(s, q, kind) {
	atomic {
		assert(slot[s].done != q);  /* answered once */
		assert(slot[s].seq == q);   /* and only what is asked */
		slot[s].reply = q;
		slot[s].reply_kind = kind
	};
	atomic { slot[s].done = q; answers[s]++; assert(answers[s] <= SEQS) };
	if
	:: slot[s].waiting == q -> wake_client(s)
	:: else
	fi
}

/* pb_lane_ring() */
inline lane_ring() {
	ring_bell();
	wake_workers()
}

/* ---- client: one thread with one slot, pb_lane_submit(), pb_lane_wait(), pb_lane_take_reply() ---- */

proctype client(byte s)
{
	byte q = 0, seen;

	{
		do
		:: q < SEQS ->
			/* pb_lane_submit() */
			atomic { q++; slot[s].request = q };
			slot[s].waiting = 0;
			slot[s].seq = q;
			ring_bell();
			if
			:: sleepers[0] || sleepers[WORKERS - 1] -> wake_one()
			:: else
			fi;
			if
			:: CANCEL -> cancel_wanted[s] = 1
			:: true
			fi;
			/* pb_lane_wait(), without the spin, which only looks */
			do
			:: true ->
				slot[s].waiting = q; /* pb_lane_arm() */
				if
				:: atomic { slot[s].done == q -> break }
				:: atomic { else -> seen = slot[s].done }
				fi;
				/* FUTEX_WAIT: compares and sleeps in one step */
				if
				:: atomic { slot[s].done == seen -> client_asleep[s] = 1 }
				:: else
				fi;
				client_asleep[s] == 0
			od;
			/* pb_lane_take_reply() */
			atomic { assert(slot[s].reply == q); seen = 0 }
		:: else -> break
		od
	} unless { client_alive[s] == 0 };
	atomic { client_asleep[s] = 0; client_ended[s] = 1 }
}

/* ---- worker: pb_serve(), pb_lane_claim(), pb_lane_set_wait() ---- */

/* claim_slot(): @got says whether. */
inline claim_slot() {
	do
	:: true ->
		atomic { old_seq = slot[s].claim_seq; old_worker = slot[s].claim_worker };
		atomic {
			q = slot[s].seq;
			if
			:: q == 0 || old_seq == q -> break
			:: else
			fi
		};
		if
		:: slot[s].done == q -> break
		:: else
		fi;
		/* compare and exchange */
		if
		:: atomic {
			slot[s].claim_seq == old_seq && slot[s].claim_worker == old_worker ->
			slot[s].claim_seq = q;
			slot[s].claim_worker = w + 1;
			got = 1;
			if
			:: FIRST_LOOK_ONLY -> break
			:: else
			fi
		   }
		:: else -> goto again
		fi;
		/* the second look: 0 after a requeue is the one value that comes back */
		if
		:: slot[s].seq == q
		:: atomic { else -> got = 0; goto again }
		fi;
		if
		:: slot[s].done != q -> break
		:: atomic { else -> got = 0 }
		fi;
again:		skip
	od
}

proctype worker(byte w)
{
	byte s, q, old_seq, old_worker;
	bit got;

	{
		do
		:: true ->
			/* pb_lane_set_claim(): the bell is read before the slots */
			atomic {
				if
				:: bell[w] -> bell[w] = 0; s = 0
				:: else -> s = SLOTS
				fi
			};
			do
			:: s < SLOTS ->
				claim_slot();
				atomic {
					old_seq = 0; old_worker = 0;
					if
					:: got -> bell[w] = 1; break /* what else waits is looked at next */
					:: else -> s++
					fi
				}
			:: else -> break
			od;
			if
			:: got ->
				/* pb_lane_take_request(), the run */
				atomic { assert(slot[s].request == q); assert(slot[s].done != q); got = 0 };
				lane_reply(s, q, RESULT);
				atomic { q = 0; s = 0 }
			:: else ->
				/* sleep_on_all() */
				atomic { sleepers[w] = 1; q = 0; s = 0 };
				if
				:: !bell[w] && !board_bell[w] ->
					if
					:: atomic { !bell[w] && !board_bell[w] -> worker_asleep[w] = 1 }
					:: else
					fi;
end:					worker_asleep[w] == 0
				:: else
				fi;
				atomic { sleepers[w] = 0; board_bell[w] = 0 }
			fi
		od
	} unless { alive[w] == 0 };
	atomic { worker_asleep[w] = 0; reaped[w] = 1 }
}

/* ---- who kills: workers are alike, so the first to die is worker 0 ---- */

proctype killer()
{
	do
	:: atomic { deaths < DEATHS && alive[0] -> alive[0] = 0; deaths++ }
	:: atomic { deaths > 0 && deaths < DEATHS && alive[WORKERS - 1] -> alive[WORKERS - 1] = 0; deaths++ }
	:: break
	od;
	if
	:: CLIENT_DIES -> client_alive[0] = 0
	:: true
	fi
}

/* ---- broker: pb_worker_died(), pb_lanes_worker_died(), pb_lanes_cancel(), pb_worker_fork() ---- */

proctype broker()
{
	byte w, s, q, old_seq, old_worker;

	do
	:: reaped[0] || reaped[WORKERS - 1] ->
		atomic { w = (reaped[0] -> 0 : WORKERS - 1); reaped[w] = 0; s = 0 };
		do
		:: s < SLOTS ->
			/* pb_lane_look() */
			atomic { old_seq = slot[s].claim_seq; old_worker = slot[s].claim_worker };
			q = slot[s].seq;
			if
			:: q != 0 && old_seq == q && old_worker == w + 1 && slot[s].done != q ->
				if
				:: RETRY ->
					/* pb_lane_requeue() */
					if
					:: atomic {
						slot[s].claim_seq == q && slot[s].claim_worker == w + 1 ->
						slot[s].claim_seq = 0;
						slot[s].claim_worker = NOBODY
					   }
					:: else
					fi;
					lane_ring()
				:: true -> lane_reply(s, q, FAILURE) /* pb_lane_fail() */
				fi
			:: else
			fi;
			/* pb_lane_rouse(): it may have died between its answer and the wake */
			atomic {
				if
				:: NO_ROUSE
				:: else -> wake_client(s)
				fi;
				s++
			}
		:: else -> break
		od;
		/* A fork in its place; lanes are attached: it looks at each once, the mark of one that died asleep goes. */
		atomic {
			s = 0; q = 0; old_seq = 0; old_worker = 0;
			sleepers[w] = 0; alive[w] = 1;
			bell[w] = 1; run worker(w)
		};
		ring_board(); /* pb_board_ring() */
		wake_workers()
	:: atomic { CANCEL && cancel_wanted[0] -> cancel_wanted[0] = 0; q = slot[0].seq };
		if
		:: q != 0 && slot[0].done != q ->
			/* pb_lane_claim_unserved(); if a worker has it, it is killed: the killer does that */
			atomic { old_seq = slot[0].claim_seq; old_worker = slot[0].claim_worker };
			if
			:: atomic { (old_seq == q || (!CANCEL_BLINDLY && slot[0].seq != q)) -> goto cancelled }
			:: else
			fi;
			if
			:: atomic { (!CANCEL_BLINDLY && slot[0].done == q) -> goto cancelled }
			:: else
			fi;
			if
			:: atomic {
				slot[0].claim_seq == old_seq && slot[0].claim_worker == old_worker ->
				slot[0].claim_seq = q;
				slot[0].claim_worker = NOBODY
			   }
			:: atomic { else -> goto cancelled }
			fi;
			if
			:: slot[0].seq == q || CANCEL_BLINDLY
			:: atomic { else -> goto cancelled }
			fi;
			if
			:: slot[0].done != q || CANCEL_BLINDLY -> lane_reply(0, q, FAILURE)
			:: else
			fi
		:: else
		fi;
cancelled:	atomic { q = 0; old_seq = 0; old_worker = 0 }
	:: client_ended[0] && client_ended[SLOTS - 1] -> break
	od
}

init {
	byte i = 0;

	atomic {
		do
		:: i < SLOTS -> client_alive[i] = 1; run client(i); i++
		:: else -> break
		od;
		i = 0;
		do
		:: i < WORKERS -> alive[i] = 1; bell[i] = 1; run worker(i); i++
		:: else -> break
		od;
		run killer();
		run broker()
	}
}

/* Every client has all its answers, or is dead. */
ltl served { <> (client_ended[0] && client_ended[SLOTS - 1]) }
