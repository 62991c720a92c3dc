/* SPDX-License-Identifier: Apache-2.0 */
/* The serve loop: control messages, claims, waiting. See serve.h. */
#include "worker/serve.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "ipc/fdmap.h"
#include "ipc/lane.h"
#include "ipc/socket.h"
#include "worker/changes.h"
#include "worker/interpose.h"
#include "worker/ops.h"
#include "worker/run.h"

#define LANES_MAX 100 /* futex_waitv takes 128 words */
#define SPIN_NS 20000u

struct served {
	uint32_t id;
	uint32_t bell; /* when it was last scanned */
	struct pb_lane lane;
};

struct server {
	struct pb_model *model;
	const struct pb_board *board;
	uint32_t worker;
	uint32_t board_bell;
	struct served *lanes[LANES_MAX];
	uint32_t n_lanes;
	uint32_t first; /* where the next round begins: no lane starves another */
	struct pb_runner runner;
	struct pb_lane_decoder *decoder;
	struct pb_rx *rx;
	struct pb_changes changes;
	bool retiring;	  /* ends once no client has outputs to fetch */
	char *state_lost; /* what the first request is told; NULL: nothing */
	uint32_t misses;  /* spins in a row that did not pay */
	uint8_t request[65536], reply[65536];
};

/* What the fault handler needs to know; one thread serves. */
static struct {
	struct pb_lane *lane;
	uint32_t slot, seq;
} volatile running;

static void on_fault(int sig, siginfo_t *info, void *context)
{
	struct pb_lane *l = running.lane;
	uint8_t *at = info->si_addr;

	(void)sig;
	(void)context;
	if (!l)
		return;
	/* SEGV_ACCERR inside what the client gave us: a store into an input. The instruction is repeated after this
	 * handler, which is gone by then (SA_RESETHAND): the process dies of it, and the broker finds the mark. */
	for (int i = 0; i <= PB_LANE_SEGMENTS_MAX; i++)
		if (info->si_code == SEGV_ACCERR && l->up_seg[i].base && at >= l->up_seg[i].base &&
		    (uint64_t)(at - l->up_seg[i].base) < l->up_seg[i].bytes)
			pb_lane_mark_fault(l, running.slot, running.seq);
}

static void on_refusal(void)
{
	if (running.lane)
		pb_lane_mark_refused(running.lane, running.slot, running.seq);
}

void pb_serve_install_fault_handler(void)
{
	static uint8_t stack[16384];
	stack_t ss = {.ss_sp = stack, .ss_size = sizeof(stack)};
	struct sigaction sa;

	memset(&sa, 0, sizeof(sa));
	sa.sa_sigaction = on_fault;
	sa.sa_flags = SA_SIGINFO | SA_RESETHAND | SA_ONSTACK;
	sigaltstack(&ss, NULL);
	sigaction(SIGSEGV, &sa, NULL);
}

/* ---- control messages ---- */

static struct served *find_lane(struct server *s, uint64_t id, uint32_t *ret_index)
{
	for (uint32_t i = 0; i < s->n_lanes; i++)
		if (s->lanes[i]->id == id) {
			if (ret_index)
				*ret_index = i;
			return s->lanes[i];
		}
	return NULL;
}

static void attach(struct server *s, const struct pb_msg_attach *m, struct pb_fds *fds)
{
	struct pb_lane_geometry geo = {.slots = (uint32_t)m->slots,
				       .slot_bytes = (uint32_t)m->slot_bytes,
				       .up_bytes = m->up_bytes,
				       .down_bytes = m->down_bytes};
	struct served *l;

	if (s->n_lanes == LANES_MAX)
		return;
	l = calloc(1, sizeof(*l));
	if (!l)
		return;
	l->id = (uint32_t)m->lane;
	if (pb_lane_map(&l->lane, PB_LANE_WORKER, &geo, fds->fd[0], fds->fd[1], NULL)) {
		free(l);
		return;
	}
	/* A worker that died asleep left its mark. */
	pb_lane_mark_sleeping(&l->lane, s->worker, false);
	l->bell = pb_lane_bell(&l->lane) - 1; /* look at it once: requests may wait in it */
	s->lanes[s->n_lanes++] = l;
}

static void tell_detached(uint64_t lane, uint64_t segment)
{
	struct pb_msg_detached d = {.lane = lane, .segment = segment};

	(void)!pb_write(PB_FD_WORKER_CTL, PB_MSG_detached, &d, NULL);
}

static void detach(struct server *s, uint64_t id)
{
	uint32_t i;
	struct served *l = find_lane(s, id, &i);

	if (!l)
		return;
	if (s->runner.kept_lane == &l->lane) {
		pb_runner_forget(&s->runner);
		s->runner.kept_lane = NULL;
	}
	pb_lane_unmap(&l->lane);
	free(l);
	s->lanes[i] = s->lanes[--s->n_lanes];
	tell_detached(id, 0);
}

/* What it was woken for others may do: they sleep on the same words. */
static void wake_others(struct server *s)
{
	for (uint32_t i = 0; i < s->n_lanes; i++)
		pb_futex_wake(pb_lane_bell_word(&s->lanes[i]->lane), PB_WORKERS_MAX);
}

static void retire_if_done(struct server *s)
{
	if (!s->retiring || s->runner.kept)
		return;
	wake_others(s);
	_exit(0);
}

static void handle_lane(struct server *s)
{
	struct pb_rx *rx = s->rx;
	struct served *l;

	switch (rx->row->id) {
	case PB_MSG_attach:
		attach(s, &rx->msg.attach, &rx->fds);
		break;
	case PB_MSG_attach_segment:
		l = find_lane(s, rx->msg.attach_segment.lane, NULL);
		if (l)
			(void)!pb_lane_map_segment(&l->lane, PB_LANE_WORKER, rx->msg.attach_segment.down,
						   (uint32_t)rx->msg.attach_segment.segment,
						   rx->msg.attach_segment.bytes, rx->fds.fd[0], NULL);
		break;
	case PB_MSG_detach:
		detach(s, rx->msg.detach.lane);
		break;
	case PB_MSG_detach_segment:
		l = find_lane(s, rx->msg.detach_segment.lane, NULL);
		if (l)
			pb_lane_unmap_segment(&l->lane, (uint32_t)rx->msg.detach_segment.segment);
		tell_detached(rx->msg.detach_segment.lane, rx->msg.detach_segment.segment);
		break;
	default:
		break;
	}
}

static void handle_control(struct server *s)
{
	struct pb_rx *rx = s->rx;

	switch (rx->row->id) {
	case PB_MSG_copy_inputs:
		s->runner.copy_inputs = rx->msg.copy_inputs.on;
		break;
	case PB_MSG_constants_stage:
		pb_changes_stage(&s->changes, &rx->msg.constants_stage, &rx->fds);
		break;
	case PB_MSG_constants_extract:
		pb_changes_extract(&s->changes, &rx->msg.constants_extract, &rx->fds);
		break;
	case PB_MSG_state_lost:
		free(s->state_lost);
		s->state_lost = strdup(rx->msg.state_lost.text);
		break;
	case PB_MSG_ops_lane:
		pb_ops_attach(&rx->msg.ops_lane, &rx->fds);
		break;
	case PB_MSG_retire:
		s->retiring = true;
		break;
	default:
		handle_lane(s);
		break;
	}
	pb_fds_close(&rx->fds);
}

/* Everything that waits on the control socket. Blocks for the first message if @wait. */
static void read_control(struct server *s, bool wait)
{
	for (;;) {
		pb_status st = pb_recv(PB_FD_WORKER_CTL, PB_BROKER, PB_WORKER, PB_STATE_ANY, !wait, s->rx, NULL);

		if (st == PT2BOX_NOT_FOUND)
			return;
		if (st)
			_exit(0); /* the broker is gone, or mad: nothing to serve */
		handle_control(s);
		wait = false;
	}
}

/* ---- requests ---- */

/* Between the claim and the run: whatever was claimed after a change came into force is run with it. */
static bool make_due_change(struct server *s, const struct pb_lane *l, uint32_t slot, const struct pb_lane_request *q,
			    struct pb_lane_reply *reply)
{
	if (pb_runner_keeps(&s->runner, l, slot, q))
		return true; /* nothing runs; the outputs may lie in the old constants */
	pb_runner_forget(&s->runner);
	pb_changes_make_due(&s->changes);
	if (!s->changes.broken)
		return true;
	reply->status = PT2BOX_MODEL_ERROR;
	snprintf(reply->text, sizeof(reply->text), "new constants could not be taken; the worker is replaced");
	return false;
}

static void tell_state_lost(struct server *s, struct pb_lane_reply *reply)
{
	reply->status = PT2BOX_STATE_LOST;
	snprintf(reply->text, sizeof(reply->text), "%s", s->state_lost);
	free(s->state_lost);
	s->state_lost = NULL;
}

static void serve_one(struct server *s, struct pb_lane *l, uint32_t slot, uint32_t seq)
{
	uint32_t len = pb_lane_take_request(l, slot, s->request, sizeof(s->request));
	struct pb_lane_reply *reply = &(struct pb_lane_reply){.worker = s->worker};
	const struct pb_lane_request *q;

	reply->text[0] = '\0';
	if (pb_lane_is_cancelled(l, slot, seq)) {
		reply->status = PT2BOX_CANCELLED;
	} else if (!len || pb_lane_decode_request(s->decoder, s->request, len, &q)) {
		reply->status = PT2BOX_PROTOCOL;
	} else if (s->state_lost) {
		tell_state_lost(s, reply);
	} else if (make_due_change(s, l, slot, q, reply)) {
		pb_interpose_on_refusal(on_refusal);
		running.slot = slot;
		running.seq = seq;
		running.lane = l;
		pb_runner_run(&s->runner, l, slot, seq, q, reply);
		running.lane = NULL;
	}
	len = pb_lane_encode_reply(reply, s->reply, l->geo.slot_bytes);
	if (!len) {
		struct pb_lane_reply too_long = {.status = PT2BOX_LIMIT, .worker = s->worker};

		len = pb_lane_encode_reply(&too_long, s->reply, l->geo.slot_bytes);
	}
	pb_lane_reply(l, slot, seq, s->reply, len);
	pb_runner_release(&s->runner);
}

/* One round over the lanes whose bell has rung. */
static bool serve_round(struct server *s)
{
	bool worked = false;

	for (uint32_t i = 0; i < s->n_lanes; i++) {
		struct served *l = s->lanes[(s->first + i) % s->n_lanes];
		uint32_t bell = pb_lane_bell(&l->lane), slot, seq;

		if (bell == l->bell)
			continue;
		if (pb_lane_claim(&l->lane, s->worker, &slot, &seq)) {
			serve_one(s, &l->lane, slot, seq);
			worked = true;
			s->first = (s->first + i + 1) % s->n_lanes;
			break; /* the next lane's turn; this one's bell stays unread */
		}
		l->bell = bell;
	}
	return worked;
}

/* ---- waiting ---- */

static bool anything_new(const struct server *s)
{
	if (atomic_load_explicit(&s->board->bell, memory_order_relaxed) != s->board_bell)
		return true;
	for (uint32_t i = 0; i < s->n_lanes; i++)
		if (atomic_load_explicit(pb_lane_bell_word(&s->lanes[i]->lane), memory_order_relaxed) !=
		    s->lanes[i]->bell)
			return true;
	return false;
}

static bool spin(struct server *s)
{
	uint64_t until = pb_now_ns() + (s->misses > 16 ? 2000 : SPIN_NS);

	do {
		for (int i = 0; i < 32; i++) {
			if (anything_new(s)) {
				s->misses = 0;
				return true;
			}
			__builtin_ia32_pause();
		}
	} while (pb_now_ns() < until);
	s->misses++;
	return false;
}

static void mark_all(struct server *s, bool sleeping)
{
	for (uint32_t i = 0; i < s->n_lanes; i++)
		pb_lane_mark_sleeping(&s->lanes[i]->lane, s->worker, sleeping);
}

static void sleep_on_all(struct server *s)
{
	struct futex_waitv w[LANES_MAX + 1];

	mark_all(s, true);
	if (!anything_new(s)) {
		memset(w, 0, (s->n_lanes + 1) * sizeof(w[0]));
		w[0].val = s->board_bell;
		w[0].uaddr = (uintptr_t)&s->board->bell;
		w[0].flags = FUTEX_32;
		for (uint32_t i = 0; i < s->n_lanes; i++) {
			w[i + 1].val = s->lanes[i]->bell;
			w[i + 1].uaddr = (uintptr_t)pb_lane_bell_word(&s->lanes[i]->lane);
			w[i + 1].flags = FUTEX_32;
		}
		syscall(SYS_futex_waitv, w, s->n_lanes + 1, 0, NULL, CLOCK_MONOTONIC);
	}
	mark_all(s, false);
}

/* What control messages asked for, as soon as nothing of the last run is needed any more. */
static void settle(struct server *s)
{
	if (!s->runner.kept)
		pb_changes_make_due(&s->changes);
	retire_if_done(s);
}

_Noreturn void pb_serve(struct pb_model *m, uint32_t worker, const struct pb_board *board)
{
	static struct server server;
	struct server *s = &server;
	struct pb_msg_worker_ready ready = {.worker = worker};
	size_t tensors = m->n_inputs > m->n_outputs ? m->n_inputs : m->n_outputs;

	s->model = m;
	s->board = board;
	s->changes = (struct pb_changes){.model = m, .board = board};
	s->worker = worker;
	s->board_bell = atomic_load(&board->bell);
	s->rx = calloc(1, sizeof(*s->rx));
	s->decoder = pb_lane_decoder_new((uint32_t)tensors + 1);
	if (!s->rx || !s->decoder || pb_runner_init(&s->runner, m, NULL))
		_exit(1);
	s->runner.seed = __builtin_ia32_rdtsc() * 0x9e3779b97f4a7c15u + worker;
	if (pb_write(PB_FD_WORKER_CTL, PB_MSG_worker_ready, &ready, NULL))
		_exit(0);
	read_control(s, true);
	for (;;) {
		uint32_t bell = atomic_load_explicit(&board->bell, memory_order_acquire);

		if (bell != s->board_bell) {
			s->board_bell = bell;
			read_control(s, false);
		}
		settle(s);
		if (pb_changes_must_wait(&s->changes)) {
			pb_futex_wait(&board->bell, s->board_bell, UINT64_MAX);
			continue;
		}
		if (serve_round(s) || spin(s))
			continue;
		sleep_on_all(s);
	}
}
