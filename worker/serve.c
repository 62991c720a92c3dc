/* SPDX-License-Identifier: Apache-2.0 */
/* The serve loop: control messages, claims, waiting. See serve.h. */
#include "worker/serve.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ipc/fdmap.h"
#include "ipc/lane_set.h"
#include "ipc/socket.h"
#include "worker/changes.h"
#include "worker/interpose.h"
#include "worker/ops.h"
#include "worker/run.h"

struct server {
	struct pb_model *model;
	struct pb_lane_set lanes;
	struct pb_runner runner;
	struct pb_lane_decoder *decoder;
	struct pb_rx *rx;
	struct pb_changes changes;
	bool retiring;	  /* ends once no client has outputs to fetch */
	bool one_run;	  /* ends with the first request */
	char *state_lost; /* what the first request is told; NULL: nothing */
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

static void attach(struct server *s, const struct pb_msg_attach *m, const struct pb_fds *fds)
{
	const struct pb_lane_geometry geo = {.slots = (uint32_t)m->slots,
					     .slot_bytes = (uint32_t)m->slot_bytes,
					     .up_bytes = m->up_bytes,
					     .down_bytes = m->down_bytes};

	(void)!pb_lane_set_add(&s->lanes, (uint32_t)m->lane, &geo, fds->fd[0], fds->fd[1]);
}

static void tell_detached(uint64_t lane, uint64_t segment)
{
	struct pb_msg_detached d = {.lane = lane, .segment = segment};

	(void)!pb_write(PB_FD_WORKER_CTL, PB_MSG_detached, &d, NULL);
}

static void detach(struct server *s, uint64_t id)
{
	const struct pb_lane *l = pb_lane_set_find(&s->lanes, id);

	if (!l)
		return;
	if (s->runner.kept_lane == l) {
		pb_runner_forget(&s->runner);
		s->runner.kept_lane = NULL;
	}
	pb_lane_set_remove(&s->lanes, id);
	tell_detached(id, 0);
}

/* The bell that woke this one may have been for more than it took. */
static _Noreturn void end(struct server *s)
{
	pb_lane_set_wake_others(&s->lanes);
	_exit(0);
}

static void retire_if_done(struct server *s)
{
	if (s->retiring && !s->runner.kept)
		end(s);
}

static void handle_lane(struct server *s)
{
	struct pb_rx *rx = s->rx;
	struct pb_lane *l;

	switch (rx->row->id) {
	case PB_MSG_attach:
		attach(s, &rx->msg.attach, &rx->fds);
		break;
	case PB_MSG_attach_segment:
		l = pb_lane_set_find(&s->lanes, rx->msg.attach_segment.lane);
		if (l)
			(void)!pb_lane_map_segment(l, PB_LANE_WORKER, rx->msg.attach_segment.down,
						   (uint32_t)rx->msg.attach_segment.segment,
						   rx->msg.attach_segment.bytes, rx->fds.fd[0], NULL);
		break;
	case PB_MSG_detach:
		detach(s, rx->msg.detach.lane);
		break;
	case PB_MSG_detach_segment:
		l = pb_lane_set_find(&s->lanes, rx->msg.detach_segment.lane);
		if (l)
			pb_lane_unmap_segment(l, (uint32_t)rx->msg.detach_segment.segment);
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
	case PB_MSG_one_run:
		s->one_run = s->runner.keeps_nothing = true;
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
	struct pb_lane_reply *reply = &(struct pb_lane_reply){.worker = s->lanes.server};
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
		struct pb_lane_reply too_long = {.status = PT2BOX_LIMIT, .worker = s->lanes.server};

		len = pb_lane_encode_reply(&too_long, s->reply, l->geo.slot_bytes);
	}
	pb_lane_reply(l, slot, seq, s->reply, len);
	pb_runner_release(&s->runner);
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
	s->changes = (struct pb_changes){.model = m, .board = board};
	pb_lane_set_init(&s->lanes, board, worker, PB_LANE_SET_MAX);
	s->rx = calloc(1, sizeof(*s->rx));
	s->decoder = pb_lane_decoder_new((uint32_t)tensors + 1);
	if (!s->rx || !s->decoder || pb_runner_init(&s->runner, m, NULL))
		_exit(1);
	s->runner.seed = __builtin_ia32_rdtsc() * 0x9e3779b97f4a7c15u + worker;
	if (pb_write(PB_FD_WORKER_CTL, PB_MSG_worker_ready, &ready, NULL))
		_exit(0);
	read_control(s, true);
	for (;;) {
		struct pb_lane *l;
		uint32_t slot, seq;

		if (pb_lane_set_has_rung(&s->lanes))
			read_control(s, false);
		settle(s);
		if (pb_changes_must_wait(&s->changes) || atomic_load(&board->paused) >> worker & 1) {
			pb_futex_wait(&board->bell, s->lanes.board_bell, UINT64_MAX);
			continue;
		}
		l = pb_lane_set_claim(&s->lanes, &slot, &seq);
		if (!l) {
			pb_lane_set_wait(&s->lanes);
			continue;
		}
		serve_one(s, l, slot, seq);
		if (s->one_run)
			end(s);
	}
}
