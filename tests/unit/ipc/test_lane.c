/* SPDX-License-Identifier: Apache-2.0 */
/* ldflags: -Wl,--wrap=mmap */
/*
 * The lane protocol: one thread playing all sides step by step, then threads that race for claims, then two processes that
 * sleep and wake, then workers that are killed anywhere. Hostile values are stored where a peer could store them.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ipc/lane.h"
#include "ipc/socket.h"
#include "tests/lib/check.h"
#include "tests/unit/ipc/samples.h"

#define SECOND_NS 1000000000u

/* One lane as each side sees it, all in this process. */
struct sides {
	struct pb_lane_geometry geo;
	int up, down;
	struct pb_lane client, worker, broker;
};

static void map_side(const struct sides *s, enum pb_lane_side side, struct pb_lane *ret)
{
	struct pt2box_error err;

	assert_int_equal(PT2BOX_OK, pb_lane_map(ret, side, &s->geo, s->up, s->down, &err));
}

static void make_lane(struct sides *s, uint32_t slots, uint32_t slot_bytes, uint64_t bytes)
{
	uint64_t up, down, control;
	struct pt2box_error err;

	s->geo = (struct pb_lane_geometry){slots, slot_bytes, bytes, bytes};
	assert_int_equal(PT2BOX_OK, pb_lane_sizes(&s->geo, &up, &down, &control));
	assert_int_equal(control + bytes, up);
	assert_int_equal(PT2BOX_OK, pb_memfd("up", up, &s->up, &err));
	assert_int_equal(PT2BOX_OK, pb_memfd("down", down, &s->down, &err));
	map_side(s, PB_LANE_CLIENT, &s->client);
	map_side(s, PB_LANE_WORKER, &s->worker);
	map_side(s, PB_LANE_BROKER, &s->broker);
}

static void end_lane(struct sides *s)
{
	pb_lane_unmap(&s->client);
	pb_lane_unmap(&s->worker);
	pb_lane_unmap(&s->broker);
	close(s->up);
	close(s->down);
}

/* The structs of a slot, as one who ignores the protocol finds them. */
static struct pb_lane_up_slot *raw_up(const struct pb_lane *l, uint32_t slot)
{
	return (struct pb_lane_up_slot *)(void *)(l->up + 256 + (size_t)slot * l->slot_stride);
}

static struct pb_lane_down_slot *raw_down(const struct pb_lane *l, uint32_t slot)
{
	return (struct pb_lane_down_slot *)(void *)(l->down + 256 + (size_t)slot * l->slot_stride);
}

static void submit(struct sides *s, uint32_t slot, uint32_t seq)
{
	pb_lane_submit(&s->client, slot, seq, (const uint8_t *)&seq, sizeof(seq));
}

static void answer(struct sides *s, uint32_t slot, uint32_t seq)
{
	const uint64_t text = (uint64_t)seq * 3;

	pb_lane_reply(&s->worker, slot, seq, (const uint8_t *)&text, sizeof(text));
}

static bool claimed(struct sides *s, uint32_t worker, uint32_t slot, uint32_t seq)
{
	uint32_t got_slot, got_seq;

	return pb_lane_claim(&s->worker, worker, &got_slot, &got_seq) && got_slot == slot && got_seq == seq;
}

/* ---- geometry ---- */

static void test_sizes(void **state)
{
	static const struct pb_lane_geometry bad[] = {
		{0, 4096, 0, 0},	    {PB_LANE_SLOTS_MAX + 1, 4096, 0, 0},
		{UINT32_MAX, 4096, 0, 0},   {1, 63, 0, 0},
		{1, 65537, 0, 0},	    {1, UINT32_MAX, 0, 0},
		{1, 64, ((uint64_t)1 << 40) + 1, 0}, {1, 64, 0, ((uint64_t)1 << 40) + 1},
		{1, 64, UINT64_MAX, 0},	    {1, 64, 0, UINT64_MAX},
	};
	static const struct pb_lane_geometry good[] = {
		{1, 64, 0, 0}, {PB_LANE_SLOTS_MAX, 65536, (uint64_t)1 << 40, (uint64_t)1 << 40}, {7, 100, 5, 6},
	};
	uint64_t up, down, control;
	struct pt2box_error err;
	struct pb_lane l;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(PT2BOX_LIMIT, pb_lane_sizes(&bad[i], &up, &down, &control));
		assert_int_equal(PT2BOX_LIMIT, pb_lane_map(&l, PB_LANE_CLIENT, &bad[i], 0, 0, &err));
	}
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		assert_int_equal(PT2BOX_OK, pb_lane_sizes(&good[i], &up, &down, &control));
		assert_int_equal(0, control % 4096);
		assert_true(control >= 256 + (uint64_t)good[i].slots * good[i].slot_bytes);
		assert_true(up == control + good[i].up_bytes && down == control + good[i].down_bytes);
	}
}

/* A store into the other side's memory kills the one who tries, not the protocol. */
static bool store_dies(uint8_t *at)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		signal(SIGSEGV, SIG_DFL);
		prctl(PR_SET_DUMPABLE, 0);
		*(volatile uint8_t *)at = 1;
		_exit(0);
	}
	assert_int_equal(pid, waitpid(pid, &status, 0));
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV;
}

static void test_who_may_write_what(void **state)
{
	struct sides s;

	(void)state;
	make_lane(&s, 2, 256, 8192);
	assert_false(store_dies(s.client.up));
	assert_true(store_dies(s.client.down));
	assert_true(store_dies(s.client.down_seg[0].base));
	assert_false(store_dies(s.client.up_seg[0].base));
	assert_false(store_dies(s.worker.down));
	assert_true(store_dies(s.worker.up));
	assert_true(store_dies(s.worker.up_seg[0].base));
	assert_false(store_dies(s.worker.down_seg[0].base));
	/* The broker sees no tensor at all. */
	assert_null(s.broker.up_seg[0].base);
	assert_null(s.broker.down_seg[0].base);
	assert_int_equal(s.broker.control_bytes, s.broker.up_mapped);
	assert_int_equal(s.broker.control_bytes, s.broker.down_mapped);
	end_lane(&s);
}

static void test_failing_maps(void **state)
{
	struct sides s;
	struct pb_lane l;
	struct pt2box_error err;

	(void)state;
	make_lane(&s, 2, 256, 8192);
	for (long n = 0; check_fail_at(n); n++) {
		pb_status st = pb_lane_map(&l, PB_LANE_CLIENT, &s.geo, s.up, s.down, &err);

		if (st == PT2BOX_OK) {
			st = pb_lane_map_segment(&l, PB_LANE_CLIENT, true, 9, 4096, s.up, &err);
			if (st)
				assert_null(pb_lane_span(&l, true, 9, 0, 1));
			pb_lane_unmap(&l);
		}
		assert_int_equal(check_failed() ? PT2BOX_SYSTEM : PT2BOX_OK, st);
		assert_null(l.up);
		assert_null(l.down);
	}
	end_lane(&s);
}

/* ---- the life of a slot ---- */

static void test_one_request(void **state)
{
	struct pb_lane_pace pace = {0};
	struct pb_lane_peek look;
	struct sides s;
	uint32_t slot = 99, seq = 99, bell;
	uint8_t buf[256];

	(void)state;
	make_lane(&s, 4, 256, 4096);
	assert_false(pb_lane_claim(&s.worker, 0, &slot, &seq));
	pb_lane_look(&s.broker, 2, &look);
	assert_false(look.pending || look.claimed || look.fault || look.refused);
	bell = pb_lane_bell(&s.worker);
	pb_lane_submit(&s.client, 2, 7, (const uint8_t *)"question", 8);
	assert_int_equal(bell + 1, pb_lane_bell(&s.worker));
	pb_lane_look(&s.broker, 2, &look);
	assert_true(look.seq == 7 && look.pending && !look.claimed);
	assert_true(pb_lane_claim(&s.worker, 5, &slot, &seq));
	assert_int_equal(2, slot);
	assert_int_equal(7, seq);
	assert_false(pb_lane_claim(&s.worker, 6, &slot, &seq));
	pb_lane_look(&s.broker, 2, &look);
	assert_true(look.pending && look.claimed && look.worker == 5);
	assert_int_equal(8, pb_lane_take_request(&s.worker, 2, buf, sizeof(buf)));
	assert_memory_equal("question", buf, 8);
	assert_false(pb_lane_is_done(&s.client, 2, 7));
	pb_lane_reply(&s.worker, 2, 7, (const uint8_t *)"answer", 6);
	assert_true(pb_lane_is_done(&s.client, 2, 7));
	assert_true(pb_lane_wait(&s.client, 2, 7, &pace, 0)); /* there already: no deadline matters */
	assert_int_equal(6, pb_lane_take_reply(&s.client, 2, buf, sizeof(buf)));
	assert_memory_equal("answer", buf, 6);
	pb_lane_look(&s.broker, 2, &look);
	assert_true(!look.pending && !look.claimed && look.done == 7);
	assert_false(pb_lane_claim(&s.worker, 5, &slot, &seq));
	end_lane(&s);
}

/* Every slot gets its turn: the scan begins where the last one ended. */
static void test_slots_take_turns(void **state)
{
	struct sides s;

	(void)state;
	make_lane(&s, 4, 64, 0);
	for (uint32_t i = 0; i < 4; i++)
		submit(&s, i, 10 + i);
	assert_true(claimed(&s, 0, 0, 10));
	answer(&s, 0, 10);
	submit(&s, 0, 20);
	assert_true(claimed(&s, 0, 1, 11));
	assert_true(claimed(&s, 0, 2, 12));
	assert_true(claimed(&s, 0, 3, 13));
	assert_true(claimed(&s, 0, 0, 20));
	end_lane(&s);
}

static void test_sequence_numbers_wrap(void **state)
{
	uint32_t seq = UINT32_MAX - 5, slot, got;
	struct sides s;

	(void)state;
	make_lane(&s, 1, 64, 0);
	for (int i = 0; i < 12; i++) {
		seq = seq == UINT32_MAX ? 1 : seq + 1; /* never 0 */
		submit(&s, 0, seq);
		assert_true(pb_lane_claim(&s.worker, 0, &slot, &got));
		assert_int_equal(seq, got);
		assert_false(pb_lane_is_done(&s.client, 0, seq));
		answer(&s, 0, seq);
		assert_true(pb_lane_is_done(&s.client, 0, seq));
	}
	end_lane(&s);
}

static void test_cancel(void **state)
{
	struct sides s;

	(void)state;
	make_lane(&s, 2, 64, 0);
	submit(&s, 1, 5);
	assert_false(pb_lane_is_cancelled(&s.worker, 1, 5));
	pb_lane_cancel(&s.client, 1, 5);
	assert_true(pb_lane_is_cancelled(&s.worker, 1, 5));
	assert_false(pb_lane_is_cancelled(&s.worker, 0, 5));
	assert_true(claimed(&s, 0, 1, 5)); /* the worker answers it all the same, with CANCELLED */
	answer(&s, 1, 5);
	submit(&s, 1, 6);
	assert_false(pb_lane_is_cancelled(&s.worker, 1, 6)); /* the next one is not meant */
	end_lane(&s);
}

/* The broker means to fail request 5, which has been answered by now; a worker has the next one. */
static void test_late_cancel(void **state)
{
	struct pb_lane_peek look;
	struct sides s;

	(void)state;
	make_lane(&s, 2, 64, 0);
	submit(&s, 1, 5);
	assert_true(pb_lane_claim_unserved(&s.broker, 1, 5));
	pb_lane_fail(&s.broker, 1, 5, PT2BOX_CANCELLED, 0, "");
	submit(&s, 1, 6);
	assert_false(pb_lane_claim_unserved(&s.broker, 1, 5));
	assert_true(claimed(&s, 3, 1, 6));
	assert_false(pb_lane_claim_unserved(&s.broker, 1, 5));
	assert_false(pb_lane_claim_unserved(&s.broker, 1, 6));
	pb_lane_look(&s.broker, 1, &look);
	assert_true(look.claimed && look.worker == 3 && look.seq == 6);
	answer(&s, 1, 6);
	assert_false(pb_lane_claim_unserved(&s.broker, 1, 6));
	end_lane(&s);
}

static void *sleep_for_reply(void *data)
{
	struct sides *s = data;
	struct pb_lane_pace pace = {.misses = 1u << 31};

	return pb_lane_wait(&s->client, 0, 1, &pace, UINT64_MAX) ? data : NULL;
}

/* A worker that dies between its answer and the wake. */
static void test_rouse(void **state)
{
	struct timespec nap = {.tv_nsec = 1000000};
	pthread_t thread;
	struct sides s;
	void *ok;

	(void)state;
	make_lane(&s, 1, 64, 0);
	submit(&s, 0, 1);
	assert_int_equal(0, pthread_create(&thread, NULL, sleep_for_reply, &s));
	while (atomic_load(&raw_up(&s.client, 0)->waiting) != 1)
		nanosleep(&nap, NULL);
	for (int i = 0; i < 50; i++) /* it is about to sleep */
		nanosleep(&nap, NULL);
	atomic_store(&raw_down(&s.worker, 0)->done, 1);
	pb_lane_rouse(&s.broker);
	assert_int_equal(0, pthread_join(thread, &ok));
	assert_non_null(ok);
	end_lane(&s);
}

static void test_marks(void **state)
{
	struct pb_lane_peek look;
	struct sides s;

	(void)state;
	make_lane(&s, 2, 64, 0);
	submit(&s, 1, 5);
	assert_true(claimed(&s, 3, 1, 5));
	pb_lane_mark_fault(&s.worker, 1, 5);
	pb_lane_mark_refused(&s.worker, 1, 5);
	pb_lane_look(&s.broker, 1, &look);
	assert_true(look.fault && look.refused);
	answer(&s, 1, 5);
	submit(&s, 1, 6);
	pb_lane_look(&s.broker, 1, &look);
	assert_false(look.fault || look.refused);
	/* From a signal handler, with whatever is in the registers. */
	pb_lane_mark_fault(&s.worker, 2, 5);
	pb_lane_mark_fault(&s.worker, UINT32_MAX, 5);
	pb_lane_mark_refused(&s.worker, UINT32_MAX, 5);
	end_lane(&s);
}

/* ---- the broker in the place of a dead worker ---- */

static void test_requeue(void **state)
{
	struct pb_lane_peek look;
	struct sides s;
	uint32_t bell;

	(void)state;
	make_lane(&s, 2, 64, 0);
	submit(&s, 0, 5);
	assert_true(claimed(&s, 1, 0, 5));
	pb_lane_mark_fault(&s.worker, 0, 5);
	assert_false(claimed(&s, 2, 0, 5));
	bell = pb_lane_bell(&s.worker);
	pb_lane_requeue(&s.broker, 0, 5);
	assert_int_not_equal(bell, pb_lane_bell(&s.worker)); /* or nobody would look */
	pb_lane_look(&s.broker, 0, &look);
	assert_true(look.pending && !look.claimed && !look.fault);
	assert_true(claimed(&s, 2, 0, 5));
	pb_lane_look(&s.broker, 0, &look);
	assert_int_equal(2, look.worker);
	/* Late, or for another run: nothing happens to the claim. */
	pb_lane_requeue(&s.broker, 0, 4);
	assert_false(claimed(&s, 3, 0, 5));
	answer(&s, 0, 5);
	pb_lane_requeue(&s.broker, 0, 5);
	assert_false(claimed(&s, 3, 0, 5));
	end_lane(&s);
}

static void test_fail(void **state)
{
	static const uint32_t sizes[] = {64, 128, 512, 1024, 2048, 65536};
	struct pb_lane_decoder *d = pb_lane_decoder_new(4);
	char longest[700];

	(void)state;
	assert_non_null(d);
	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		for (int lang = 0; lang < 2; lang++) {
			const struct pb_lane_reply *p;
			static uint8_t buf[65536];
			struct sides s;
			uint32_t len;

			make_lane(&s, 2, sizes[i], 0);
			submit(&s, 1, 5);
			assert_true(claimed(&s, 1, 1, 5));
			pb_lane_fail(&s.broker, 1, 5, PT2BOX_MODEL_CRASHED, 11, lang ? longest : "it\ndied");
			assert_true(pb_lane_is_done(&s.client, 1, 5));
			len = pb_lane_take_reply(&s.client, 1, buf, sizeof(buf));
			assert_int_equal(PT2BOX_OK, pb_lane_decode_reply(d, buf, len, &p));
			assert_int_equal(PT2BOX_MODEL_CRASHED, p->status);
			assert_int_equal(11, p->signal);
			if (!lang)
				assert_string_equal("it?died", p->text);
			else
				assert_int_equal(sizes[i] < 512 ? 0 : sizeof(p->text) - 1, strlen(p->text));
			end_lane(&s);
		}
	pb_lane_decoder_free(d);
}

/* ---- hostile ends ---- */

static void test_hostile_lengths(void **state)
{
	static const uint32_t lens[] = {0, 257, 4096, 65536, INT32_MAX, (uint32_t)INT32_MAX + 1, UINT32_MAX};
	uint8_t buf[8192];
	struct sides s;

	(void)state;
	make_lane(&s, 2, 256, 0);
	submit(&s, 1, 5);
	assert_true(claimed(&s, 0, 1, 5));
	answer(&s, 1, 5);
	for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		raw_up(&s.client, 1)->len = lens[i];
		raw_down(&s.worker, 1)->len = lens[i];
		assert_int_equal(0, pb_lane_take_request(&s.worker, 1, buf, sizeof(buf)));
		assert_int_equal(0, pb_lane_take_reply(&s.client, 1, buf, sizeof(buf)));
	}
	raw_up(&s.client, 1)->len = 256;
	raw_down(&s.worker, 1)->len = 256;
	assert_int_equal(256, pb_lane_take_request(&s.worker, 1, buf, sizeof(buf)));
	assert_int_equal(256, pb_lane_take_reply(&s.client, 1, buf, sizeof(buf)));
	assert_int_equal(0, pb_lane_take_request(&s.worker, 1, buf, 255)); /* longer than the caller has room */
	assert_int_equal(0, pb_lane_take_reply(&s.client, 1, buf, 255));
	end_lane(&s);
}

/* The broker looks at words that nobody promised anything about. */
static void test_hostile_words(void **state)
{
	uint64_t seed = 8;
	struct sides s;

	(void)state;
	make_lane(&s, 2, 64, 0);
	for (int i = 0; i < 100000; i++) {
		struct pb_lane_peek look;
		uint32_t slot, seq;

		atomic_store(&raw_up(&s.client, 1)->seq, (uint32_t)(check_rand(&seed) % 3));
		atomic_store(&raw_down(&s.worker, 1)->claim,
			     check_rand(&seed) % 3 << 32 | (check_rand(&seed) & (i & 1 ? 3 : UINT32_MAX)));
		atomic_store(&raw_down(&s.worker, 1)->done, (uint32_t)(check_rand(&seed) % 3));
		pb_lane_look(&s.broker, 1, &look);
		assert_true(look.worker < PB_WORKERS_MAX);
		assert_true(!look.claimed || look.pending);
		assert_true(!look.pending || look.seq != 0);
		if (check_rand(&seed) & 1)
			pb_lane_requeue(&s.broker, 1, look.seq);
		if (pb_lane_claim(&s.worker, 0, &slot, &seq))
			assert_true(slot == 1 && seq != 0);
	}
	end_lane(&s);
}

/* A worker that answers with other sequence numbers, and rings: the client waits until its own deadline, no longer. */
static void *wrong_replies(void *arg)
{
	struct sides *s = arg;

	for (int i = 0; i < 200; i++) {
		atomic_store(&raw_down(&s->worker, 0)->done, 1000 + (uint32_t)i);
		pb_futex_wake(&raw_down(&s->worker, 0)->done, 1);
		usleep(300);
	}
	return NULL;
}

static void test_wrong_sequence_numbers(void **state)
{
	struct pb_lane_pace pace = {0};
	uint64_t began, took;
	pthread_t thread;
	struct sides s;

	(void)state;
	make_lane(&s, 1, 64, 0);
	submit(&s, 0, 5);
	assert_int_equal(0, pthread_create(&thread, NULL, wrong_replies, &s));
	began = pb_now_ns();
	assert_false(pb_lane_wait(&s.client, 0, 5, &pace, began + 30000000));
	took = pb_now_ns() - began;
	assert_in_range(took, 30000000, 30000000 + SECOND_NS);
	pthread_join(thread, NULL);
	end_lane(&s);
}

static void test_deadline(void **state)
{
	static const uint64_t waits_us[] = {0, 5, 50, 1000, 20000};
	struct sides s;

	(void)state;
	make_lane(&s, 1, 64, 0);
	submit(&s, 0, 5);
	for (size_t i = 0; i < sizeof(waits_us) / sizeof(waits_us[0]); i++)
		/* Whatever it has learnt of earlier runs. */
		for (uint64_t run_ns = 0; run_ns < 20000000; run_ns = run_ns * 4 + 10000) {
			struct pb_lane_pace pace = {.run_ns = run_ns};
			const uint64_t began = pb_now_ns(), until = began + waits_us[i] * 1000;

			assert_false(pb_lane_wait(&s.client, 0, 5, &pace, until));
			assert_true(pb_now_ns() >= until);
			assert_true(pb_now_ns() < until + SECOND_NS / 2);
		}
	end_lane(&s);
}

/* ---- segments and windows ---- */

static void test_spans(void **state)
{
	const uint64_t n = 8192;
	struct sides s;

	(void)state;
	make_lane(&s, 1, 64, n);
	assert_ptr_equal(s.client.up_seg[0].base, pb_lane_span(&s.client, false, 0, 0, n));
	assert_ptr_equal(s.client.up_seg[0].base + n, pb_lane_span(&s.client, false, 0, n, 0));
	assert_ptr_equal(s.client.down_seg[0].base + 1, pb_lane_span(&s.client, true, 0, 1, n - 1));
	assert_null(pb_lane_span(&s.client, false, 0, 0, n + 1));
	assert_null(pb_lane_span(&s.client, false, 0, 1, n));
	assert_null(pb_lane_span(&s.client, false, 0, n + 1, 0));
	assert_null(pb_lane_span(&s.client, false, 0, UINT64_MAX, 1));
	assert_null(pb_lane_span(&s.client, false, 0, UINT64_MAX, 2));
	assert_null(pb_lane_span(&s.client, false, 0, 1, UINT64_MAX));
	assert_null(pb_lane_span(&s.client, false, 1, 0, 1));
	assert_null(pb_lane_span(&s.client, true, UINT32_MAX, 0, 1));
	assert_null(pb_lane_span(&s.broker, false, 0, 0, 1)); /* it has none */
	end_lane(&s);
}

static void test_grown_segments(void **state)
{
	struct pt2box_error err;
	struct sides s;
	int fds[PB_LANE_SEGMENTS_MAX + 1];

	(void)state;
	make_lane(&s, 1, 64, 4096);
	for (int i = 0; i <= PB_LANE_SEGMENTS_MAX; i++)
		assert_int_equal(PT2BOX_OK, pb_memfd("grown", 4096, &fds[i], &err));
	for (int i = 0; i < PB_LANE_SEGMENTS_MAX; i++) {
		const uint32_t id = 100 + (uint32_t)i;

		assert_int_equal(PT2BOX_OK,
				 pb_lane_map_segment(&s.client, PB_LANE_CLIENT, false, id, 4096, fds[i], &err));
		assert_int_equal(PT2BOX_OK,
				 pb_lane_map_segment(&s.worker, PB_LANE_WORKER, false, id, 4096, fds[i], &err));
	}
	assert_int_equal(PT2BOX_LIMIT, pb_lane_map_segment(&s.client, PB_LANE_CLIENT, false, 200, 4096,
							   fds[PB_LANE_SEGMENTS_MAX], &err));
	/* The other direction has room of its own, and other rights. */
	assert_int_equal(PT2BOX_OK, pb_lane_map_segment(&s.client, PB_LANE_CLIENT, true, 200, 4096,
							fds[PB_LANE_SEGMENTS_MAX], &err));
	assert_true(store_dies(pb_lane_span(&s.client, true, 200, 0, 1)));
	assert_true(store_dies(pb_lane_span(&s.worker, false, 105, 0, 1)));
	assert_null(pb_lane_span(&s.client, false, 200, 0, 1));
	*pb_lane_span(&s.client, false, 105, 4095, 1) = 42;
	assert_int_equal(42, *pb_lane_span(&s.worker, false, 105, 4095, 1));
	assert_null(pb_lane_span(&s.client, false, 105, 4095, 2));
	pb_lane_unmap_segment(&s.client, 105);
	assert_null(pb_lane_span(&s.client, false, 105, 0, 1));
	assert_non_null(pb_lane_span(&s.client, false, 104, 0, 1));
	pb_lane_unmap_segment(&s.client, 105);
	pb_lane_unmap_segment(&s.client, 0); /* the first one is part of the lane */
	assert_non_null(pb_lane_span(&s.client, false, 0, 0, 1));
	assert_int_equal(PT2BOX_OK, pb_lane_map_segment(&s.client, PB_LANE_CLIENT, false, 201, 4096, fds[0], &err));
	for (int i = 0; i <= PB_LANE_SEGMENTS_MAX; i++)
		close(fds[i]);
	end_lane(&s);
}

static void test_tensors_lie_in_their_segment(void **state)
{
	struct pb_lane_tensor t = sample_tensor(2, 8, true); /* 256 bytes of float32 */
	uint64_t bytes = 0;
	struct sides s;

	(void)state;
	make_lane(&s, 1, 64, 4096);
	t.segment = 0;
	t.offset = 4096 - 256;
	assert_ptr_equal(s.client.down_seg[0].base + t.offset, pb_lane_tensor_data(&s.client, &t, &bytes));
	assert_int_equal(256, bytes);
	t.offset++;
	assert_null(pb_lane_tensor_data(&s.client, &t, &bytes));
	t.offset = (uint64_t)INT64_MAX;
	assert_null(pb_lane_tensor_data(&s.client, &t, &bytes));
	t.offset = 0;
	t.strides[0] = 128;
	assert_non_null(pb_lane_tensor_data(&s.client, &t, &bytes));
	assert_int_equal((7 * 128 + 7 + 1) * 4, bytes);
	t.strides[0] = 146;
	assert_null(pb_lane_tensor_data(&s.client, &t, &bytes));
	t.segment = 1;
	assert_null(pb_lane_tensor_data(&s.client, &t, &bytes));
	t.sizes[1] = 0; /* no element: any place will do, none is read */
	assert_non_null(pb_lane_tensor_data(&s.client, &t, &bytes));
	assert_int_equal(0, bytes);
	t.none = true;
	assert_null(pb_lane_tensor_data(&s.client, &t, &bytes));
	end_lane(&s);
}

/* ---- racing for claims ---- */

#define RACERS 6

struct race {
	struct sides *s;
	uint32_t slots;
	uint64_t rounds;
	_Atomic bool over;
	_Atomic uint64_t runs;
	_Atomic uint32_t wrong; /* a run whose request was not the one claimed */
};

struct racer {
	struct race *race;
	uint32_t index;
};

static void *racer(void *arg)
{
	const struct racer *me = arg;
	struct race *r = me->race;
	struct pb_lane l;

	map_side(r->s, PB_LANE_WORKER, &l);
	while (!atomic_load(&r->over)) {
		uint32_t slot, seq, text = 0;

		if (!pb_lane_claim(&l, me->index, &slot, &seq))
			continue;
		if (pb_lane_take_request(&l, slot, (uint8_t *)&text, sizeof(text)) != sizeof(text) || text != seq)
			atomic_fetch_add(&r->wrong, 1);
		atomic_fetch_add(&r->runs, 1);
		pb_lane_reply(&l, slot, seq, (const uint8_t *)&seq, sizeof(seq));
	}
	pb_lane_unmap(&l);
	return NULL;
}

/* More workers than processors, so that one is always stopped between two instructions while others go on. */
static void race(uint32_t slots, uint64_t for_ns)
{
	struct race r = {.slots = slots};
	struct racer racers[RACERS];
	pthread_t threads[RACERS];
	struct sides s;
	const uint64_t until = pb_now_ns() + for_ns;
	uint32_t seq[PB_LANE_SLOTS_MAX] = {0};
	uint64_t submitted = 0;

	make_lane(&s, slots, 64, 0);
	r.s = &s;
	for (uint32_t i = 0; i < RACERS; i++) {
		racers[i] = (struct racer){&r, i};
		assert_int_equal(0, pthread_create(&threads[i], NULL, racer, &racers[i]));
	}
	while (pb_now_ns() < until) {
		for (uint32_t i = 0; i < slots; i++) {
			if (seq[i] && !pb_lane_is_done(&s.client, i, seq[i]))
				continue;
			submit(&s, i, ++seq[i]);
			submitted++;
		}
	}
	for (uint32_t i = 0; i < slots; i++)
		while (!pb_lane_is_done(&s.client, i, seq[i]) && pb_now_ns() < until + 10ull * SECOND_NS)
			sched_yield();
	for (uint32_t i = 0; i < slots; i++)
		assert_true(pb_lane_is_done(&s.client, i, seq[i]));
	atomic_store(&r.over, true);
	for (uint32_t i = 0; i < RACERS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(0, r.wrong);
	assert_int_equal(submitted, r.runs);
	end_lane(&s);
}

static void test_one_worker_runs_a_request(void **state)
{
	(void)state;
	race(1, 3ull * SECOND_NS);
	race(4, 2ull * SECOND_NS);
}

/* ---- two processes that sleep ---- */

static void pause_a_little(uint64_t *seed)
{
	const uint64_t r = check_rand(seed);
	struct timespec ts = {0, (long)(r >> 8 & 0x7fff)};
	uint64_t until;

	if ((r & 15) == 0) {
		nanosleep(&ts, NULL);
	} else if ((r & 15) < 3) {
		until = pb_now_ns() + (r >> 8 & 0x7fff);
		while (pb_now_ns() < until)
			;
	}
}

/* As worker/serve.c waits, but without the spin: it sleeps whenever there is nothing at this moment. */
static _Noreturn void echo_process(const struct sides *s, uint32_t index, bool with_pauses)
{
	uint64_t seed = 1000 + index + (uint64_t)getpid();
	struct pb_lane l;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	map_side(s, PB_LANE_WORKER, &l);
	for (;;) {
		const uint32_t bell = pb_lane_bell(&l);
		uint32_t slot, seq;
		uint8_t buf[64];

		if (pb_lane_claim(&l, index, &slot, &seq)) {
			const uint32_t len = pb_lane_take_request(&l, slot, buf, sizeof(buf));

			if (with_pauses)
				pause_a_little(&seed);
			pb_lane_reply(&l, slot, seq, buf, len);
			continue;
		}
		pb_lane_mark_sleeping(&l, index, true);
		if (pb_lane_bell(&l) == bell)
			pb_futex_wait(pb_lane_bell_word(&l), bell, UINT64_MAX);
		pb_lane_mark_sleeping(&l, index, false);
	}
}

static pid_t start_echo(const struct sides *s, uint32_t index)
{
	const pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0)
		echo_process(s, index, true);
	return pid;
}

static void end_echo(pid_t pid)
{
	int status;

	assert_int_equal(0, kill(pid, SIGKILL));
	assert_int_equal(pid, waitpid(pid, &status, 0));
	assert_true(WIFSIGNALED(status));
}

/* A wake-up that is lost once is a client that hangs forever. */
static void test_no_wakeup_is_lost(void **state)
{
	const uint32_t rounds = CHECK_SANITIZED ? 20000 : 200000;
	struct pb_lane_pace pace = {0};
	uint64_t seed = 9;
	struct rusage before, after;
	struct sides s;
	pid_t pid;

	(void)state;
	make_lane(&s, 1, 64, 0);
	pid = start_echo(&s, 0);
	getrusage(RUSAGE_SELF, &before);
	for (uint32_t i = 1; i <= rounds; i++) {
		uint32_t text = 0;

		pause_a_little(&seed);
		submit(&s, 0, i);
		if (!pb_lane_wait(&s.client, 0, i, &pace, pb_now_ns() + 20ull * SECOND_NS))
			fail_msg("round %u: no reply in 20 seconds", i);
		assert_int_equal(sizeof(text), pb_lane_take_reply(&s.client, 0, (uint8_t *)&text, sizeof(text)));
		assert_int_equal(i, text);
	}
	getrusage(RUSAGE_SELF, &after);
	/* It was a test: the client did sleep, often. */
	assert_true(after.ru_nvcsw - before.ru_nvcsw > (long)rounds / 100);
	end_echo(pid);
	end_lane(&s);
}

/* Several workers asleep, several requests at once: each submission wakes one more. */
static void test_several_sleepers(void **state)
{
	struct pb_lane_pace pace = {0};
	uint64_t seed = 10;
	struct sides s;
	pid_t pids[3];

	(void)state;
	make_lane(&s, 4, 64, 0);
	for (uint32_t i = 0; i < 3; i++)
		pids[i] = start_echo(&s, i);
	for (uint32_t i = 1; i <= (CHECK_SANITIZED ? 1000u : 10000u); i++) {
		pause_a_little(&seed);
		for (uint32_t slot = 0; slot < 4; slot++)
			submit(&s, slot, i);
		for (uint32_t slot = 0; slot < 4; slot++)
			if (!pb_lane_wait(&s.client, slot, i, &pace, pb_now_ns() + 20ull * SECOND_NS))
				fail_msg("round %u slot %u: no reply in 20 seconds", i, slot);
	}
	for (uint32_t i = 0; i < 3; i++)
		end_echo(pids[i]);
	end_lane(&s);
}

/* Killed anywhere; the broker takes the claim back or answers itself. Every request ends, and only once. */
static void test_workers_that_are_killed(void **state)
{
	const int kills = CHECK_SANITIZED ? 100 : 400;
	struct pb_lane_pace pace = {0};
	uint32_t seq[3] = {0}, requeued = 0, failed = 0, finished = 0;
	struct pb_lane_decoder *d = pb_lane_decoder_new(1);
	uint64_t seed = 11;
	struct sides s;
	pid_t pid;

	(void)state;
	assert_non_null(d);
	make_lane(&s, 3, 256, 0);
	pid = start_echo(&s, 7);
	for (int k = 0; k < kills; k++) {
		const uint64_t until = pb_now_ns() + check_rand(&seed) % 400000;

		do {
			for (uint32_t slot = 0; slot < 3; slot++)
				if (pb_lane_is_done(&s.client, slot, seq[slot]))
					submit(&s, slot, ++seq[slot]);
			finished += pb_lane_wait(&s.client, 0, seq[0], &pace, until);
		} while (pb_now_ns() < until);
		end_echo(pid);
		for (uint32_t slot = 0; slot < 3; slot++) {
			struct pb_lane_peek look;

			pb_lane_look(&s.broker, slot, &look);
			if (!look.claimed)
				continue;
			assert_int_equal(7, look.worker);
			if (check_rand(&seed) & 1) {
				pb_lane_requeue(&s.broker, slot, look.seq);
				requeued++;
			} else {
				pb_lane_fail(&s.broker, slot, look.seq, PT2BOX_MODEL_CRASHED, 9, "killed");
				failed++;
			}
		}
		pid = start_echo(&s, 7);
		for (uint32_t slot = 0; slot < 3; slot++) {
			const struct pb_lane_reply *p;
			uint8_t buf[256];
			uint32_t len;

			if (!pb_lane_wait(&s.client, slot, seq[slot], &pace, pb_now_ns() + 20ull * SECOND_NS))
				fail_msg("kill %d slot %u: no reply in 20 seconds", k, slot);
			len = pb_lane_take_reply(&s.client, slot, buf, sizeof(buf));
			if (len == sizeof(uint32_t))
				assert_memory_equal(&seq[slot], buf, len);
			else
				assert_int_equal(PT2BOX_OK, pb_lane_decode_reply(d, buf, len, &p));
		}
	}
	end_echo(pid);
	assert_true(requeued > 0 && failed > 0 && finished > 0);
	pb_lane_decoder_free(d);
	end_lane(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_sizes),
		CHECK_TEST(test_who_may_write_what),
		CHECK_TEST(test_failing_maps),
		CHECK_TEST(test_one_request),
		CHECK_TEST(test_slots_take_turns),
		CHECK_TEST(test_sequence_numbers_wrap),
		CHECK_TEST(test_cancel),
		CHECK_TEST(test_late_cancel),
		CHECK_TEST(test_rouse),
		CHECK_TEST(test_marks),
		CHECK_TEST(test_requeue),
		CHECK_TEST(test_fail),
		CHECK_TEST(test_hostile_lengths),
		CHECK_TEST(test_hostile_words),
		CHECK_TEST(test_wrong_sequence_numbers),
		CHECK_TEST(test_deadline),
		CHECK_TEST(test_spans),
		CHECK_TEST(test_grown_segments),
		CHECK_TEST(test_tensors_lie_in_their_segment),
		CHECK_TEST(test_one_worker_runs_a_request),
		CHECK_TEST(test_no_wakeup_is_lost),
		CHECK_TEST(test_several_sleepers),
		CHECK_TEST(test_workers_that_are_killed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
