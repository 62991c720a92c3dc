/* SPDX-License-Identifier: Apache-2.0 */
/* Lanes: mapping, the slot protocol, waiting. Payloads are in lane_payload.c. See lane.h for the protocol. */
#include "ipc/lane.h"

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "ipc/checked.h"

#define PAGE 4096u
#define HEAD_BYTES 256u
#define SPIN_NS 20000u

_Static_assert(sizeof(struct pb_lane_up_head) <= HEAD_BYTES, "head fits");
_Static_assert(sizeof(struct pb_lane_down_head) <= HEAD_BYTES, "head fits");
_Static_assert(sizeof(struct pb_lane_down_slot) % 8 == 0, "payload is aligned");

uint64_t pb_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void pb_futex_wait(const _Atomic uint32_t *word, uint32_t value, uint64_t timeout_ns)
{
	struct timespec ts = {.tv_sec = (time_t)(timeout_ns / 1000000000u),
			      .tv_nsec = (long)(timeout_ns % 1000000000u)};

	syscall(SYS_futex, word, FUTEX_WAIT, value, timeout_ns == UINT64_MAX ? NULL : &ts, NULL, 0);
}

void pb_futex_wake(const _Atomic uint32_t *word, int n)
{
	syscall(SYS_futex, word, FUTEX_WAKE, n, NULL, NULL, 0);
}

uint32_t pb_lane_slot_bytes(uint32_t n_inputs, uint32_t n_outputs)
{
	uint64_t in = 256 + 192ull * n_inputs, out = 768 + 192ull * n_outputs + 192ull * n_inputs;
	uint64_t v = in > out ? in : out;

	if (v > 65536)
		return 65536;
	return (uint32_t)((v + 63) & ~63ull);
}

static uint32_t slot_stride(const struct pb_lane_geometry *geo)
{
	return (uint32_t)((sizeof(struct pb_lane_down_slot) + geo->slot_bytes + 127) & ~127u);
}

pb_status pb_lane_sizes(const struct pb_lane_geometry *geo, uint64_t *ret_up_total, uint64_t *ret_down_total,
			uint64_t *ret_control)
{
	uint64_t control;

	if (geo->slots == 0 || geo->slots > PB_LANE_SLOTS_MAX || geo->slot_bytes < 64 || geo->slot_bytes > 65536)
		return PT2BOX_LIMIT;
	if (!pb_align_u64(HEAD_BYTES + (uint64_t)geo->slots * slot_stride(geo), PAGE, &control))
		return PT2BOX_LIMIT;
	if (geo->up_bytes > 1ull << 40 || geo->down_bytes > 1ull << 40)
		return PT2BOX_LIMIT;
	*ret_up_total = control + geo->up_bytes;
	*ret_down_total = control + geo->down_bytes;
	*ret_control = control;
	return PT2BOX_OK;
}

static pb_status map_memory(int fd, uint64_t bytes, bool writable, uint8_t **ret, struct pt2box_error *err)
{
	void *p = mmap(NULL, bytes, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		return pb_error_sys(err, "cannot map a lane of %llu bytes", (unsigned long long)bytes);
	*ret = p;
	return PT2BOX_OK;
}

pb_status pb_lane_map(struct pb_lane *l, enum pb_lane_side side, const struct pb_lane_geometry *geo, int up_fd,
		      int down_fd, struct pt2box_error *err)
{
	uint64_t up_total, down_total, control;
	pb_status st = pb_lane_sizes(geo, &up_total, &down_total, &control);

	if (st)
		return pb_error_set(err, st, "a lane of this size cannot be made");
	memset(l, 0, sizeof(*l));
	l->geo = *geo;
	l->control_bytes = control;
	l->slot_stride = slot_stride(geo);
	l->up_mapped = side == PB_LANE_BROKER ? control : up_total;
	l->down_mapped = side == PB_LANE_BROKER ? control : down_total;
	st = map_memory(up_fd, l->up_mapped, side != PB_LANE_WORKER, &l->up, err);
	if (st)
		return st;
	st = map_memory(down_fd, l->down_mapped, side != PB_LANE_CLIENT, &l->down, err);
	if (st) {
		munmap(l->up, l->up_mapped);
		l->up = NULL;
		return st;
	}
	if (side != PB_LANE_BROKER) {
		l->up_seg[0] = (struct pb_lane_segment){l->up + control, geo->up_bytes, 0};
		l->down_seg[0] = (struct pb_lane_segment){l->down + control, geo->down_bytes, 0};
	}
	return PT2BOX_OK;
}

static void unmap_table(struct pb_lane_segment *seg)
{
	for (int i = 1; i <= PB_LANE_SEGMENTS_MAX; i++)
		if (seg[i].base)
			munmap(seg[i].base, seg[i].bytes);
}

void pb_lane_unmap(struct pb_lane *l)
{
	unmap_table(l->up_seg);
	unmap_table(l->down_seg);
	if (l->up)
		munmap(l->up, l->up_mapped);
	if (l->down)
		munmap(l->down, l->down_mapped);
	memset(l, 0, sizeof(*l));
}

pb_status pb_lane_map_segment(struct pb_lane *l, enum pb_lane_side side, bool down, uint32_t id, uint64_t bytes,
			      int fd, struct pt2box_error *err)
{
	struct pb_lane_segment *table = down ? l->down_seg : l->up_seg;
	bool writable = down ? side == PB_LANE_WORKER : side == PB_LANE_CLIENT;

	for (int i = 1; i <= PB_LANE_SEGMENTS_MAX; i++) {
		pb_status st;

		if (table[i].base)
			continue;
		st = map_memory(fd, bytes, writable, &table[i].base, err);
		if (st) {
			table[i].base = NULL;
			return st;
		}
		table[i].bytes = bytes;
		table[i].id = id;
		return PT2BOX_OK;
	}
	return pb_error_set(err, PT2BOX_LIMIT, "a lane has at most %d grown segments", PB_LANE_SEGMENTS_MAX);
}

void pb_lane_unmap_segment(struct pb_lane *l, uint32_t id)
{
	for (int i = 1; i <= PB_LANE_SEGMENTS_MAX; i++) {
		struct pb_lane_segment *both[2] = {&l->up_seg[i], &l->down_seg[i]};

		for (int d = 0; d < 2; d++)
			if (both[d]->base && both[d]->id == id) {
				munmap(both[d]->base, both[d]->bytes);
				*both[d] = (struct pb_lane_segment){0};
			}
	}
}

uint8_t *pb_lane_span(const struct pb_lane *l, bool down, uint32_t segment, uint64_t offset, uint64_t bytes)
{
	const struct pb_lane_segment *table = down ? l->down_seg : l->up_seg;

	for (int i = 0; i <= PB_LANE_SEGMENTS_MAX; i++)
		if (table[i].base && table[i].id == segment)
			return pb_span_fits(offset, bytes, table[i].bytes) ? table[i].base + offset : NULL;
	return NULL;
}

/* ---- slots ---- */

static struct pb_lane_up_head *up_head(const struct pb_lane *l)
{
	return (struct pb_lane_up_head *)(void *)l->up;
}

static struct pb_lane_down_head *down_head(const struct pb_lane *l)
{
	return (struct pb_lane_down_head *)(void *)l->down;
}

static struct pb_lane_up_slot *up_slot(const struct pb_lane *l, uint32_t slot)
{
	return (struct pb_lane_up_slot *)(void *)(l->up + HEAD_BYTES + (uint64_t)slot * l->slot_stride);
}

static struct pb_lane_down_slot *down_slot(const struct pb_lane *l, uint32_t slot)
{
	return (struct pb_lane_down_slot *)(void *)(l->down + HEAD_BYTES + (uint64_t)slot * l->slot_stride);
}

static uint32_t my_cpu(void)
{
	return (uint32_t)sched_getcpu() + 1;
}

/* ---- client ---- */

void pb_lane_submit(struct pb_lane *l, uint32_t slot, uint32_t seq, const uint8_t *payload, uint32_t len)
{
	struct pb_lane_up_slot *s = up_slot(l, slot);
	struct pb_lane_up_head *h = up_head(l);

	memcpy(s->payload, payload, len);
	s->len = len;
	atomic_store_explicit(&s->waiting, 0, memory_order_relaxed);
	atomic_store_explicit(&s->seq, seq, memory_order_release);
	/* Full barrier: the worker marks itself, then reads the bell; we ring, then read the marks. */
	atomic_fetch_add_explicit(&h->bell, 1, memory_order_seq_cst);
	if (atomic_load_explicit(&down_head(l)->sleepers, memory_order_seq_cst))
		pb_futex_wake(&h->bell, 1);
}

bool pb_lane_is_done(const struct pb_lane *l, uint32_t slot, uint32_t seq)
{
	return atomic_load_explicit(&down_slot(l, slot)->done, memory_order_acquire) == seq;
}

/* Spin until done or @until_ns. */
static bool spin_until(const struct pb_lane *l, uint32_t slot, uint32_t seq, uint64_t until_ns)
{
	for (;;) {
		for (int i = 0; i < 32; i++) {
			if (pb_lane_is_done(l, slot, seq))
				return true;
			__builtin_ia32_pause();
		}
		if (pb_now_ns() >= until_ns)
			return false;
	}
}

const _Atomic uint32_t *pb_lane_arm(struct pb_lane *l, uint32_t slot, uint32_t seq, uint32_t *ret_value)
{
	struct pb_lane_down_slot *d = down_slot(l, slot);

	atomic_store_explicit(&up_slot(l, slot)->waiting, seq, memory_order_seq_cst);
	*ret_value = atomic_load_explicit(&d->done, memory_order_seq_cst);
	return &d->done;
}

static void sleep_on_reply(struct pb_lane *l, uint32_t slot, uint32_t seq, uint64_t timeout_ns)
{
	uint32_t done;
	const _Atomic uint32_t *word = pb_lane_arm(l, slot, seq, &done);

	if (done != seq)
		pb_futex_wait(word, done, timeout_ns);
}

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Runs of 50 us to some ms: sleep through most of the expected time, so that the spin that follows is short. */
static void sleep_through(struct pb_lane *l, uint32_t slot, uint32_t seq, const struct pb_lane_pace *pace,
			  uint64_t begin, uint64_t deadline_ns)
{
	uint64_t wake_cost = 70000, nap;

	if (pace->run_ns < 2 * wake_cost || pace->run_ns > 10000000)
		return;
	nap = pace->run_ns - wake_cost;
	if (begin + nap < deadline_ns)
		sleep_on_reply(l, slot, seq, nap);
}

static void learn(struct pb_lane_pace *pace, uint64_t took_ns)
{
	pace->run_ns = pace->run_ns ? (pace->run_ns * 7 + took_ns) / 8 : took_ns;
}

/*
 * How long to spin before sleeping: 20 us when replies come that soon, the wake-up's cost near the end of a run of known
 * length, nothing where the worker sits on this CPU or where spinning has not paid lately.
 */
static uint64_t spin_budget(const struct pb_lane *l, const struct pb_lane_pace *pace)
{
	uint32_t cpu = my_cpu();

	if (atomic_load_explicit(&down_head(l)->cpu, memory_order_relaxed) == cpu)
		return 0;
	if (pace->run_ns >= 140000 && pace->run_ns <= 10000000)
		return min_u64(pace->run_ns / 8 + 80000, 400000);
	if (pace->misses > 16)
		return 2000;
	if (pace->run_ns > SPIN_NS && pace->run_ns < 140000)
		return pace->run_ns + SPIN_NS;
	return SPIN_NS;
}

bool pb_lane_wait(struct pb_lane *l, uint32_t slot, uint32_t seq, struct pb_lane_pace *pace, uint64_t deadline_ns)
{
	uint64_t begin = pb_now_ns(), now;

	atomic_store_explicit(&up_head(l)->cpu, my_cpu(), memory_order_relaxed);
	sleep_through(l, slot, seq, pace, begin, deadline_ns);
	if (spin_until(l, slot, seq, min_u64(pb_now_ns() + spin_budget(l, pace), deadline_ns))) {
		pace->misses = 0;
		learn(pace, pb_now_ns() - begin);
		return true;
	}
	pace->misses++;
	while (!pb_lane_is_done(l, slot, seq)) {
		now = pb_now_ns();
		if (now >= deadline_ns)
			return false;
		sleep_on_reply(l, slot, seq, deadline_ns == UINT64_MAX ? UINT64_MAX : deadline_ns - now);
	}
	learn(pace, pb_now_ns() - begin);
	return true;
}

uint32_t pb_lane_take_reply(const struct pb_lane *l, uint32_t slot, uint8_t *buf, uint32_t cap)
{
	const struct pb_lane_down_slot *d = down_slot(l, slot);
	uint32_t len = *(const volatile uint32_t *)&d->len; /* once: the worker may change it under us */

	if (len == 0 || len > cap || len > l->geo.slot_bytes)
		return 0;
	memcpy(buf, d->payload, len);
	return len;
}

void pb_lane_cancel(struct pb_lane *l, uint32_t slot, uint32_t seq)
{
	atomic_store_explicit(&up_slot(l, slot)->cancel, seq, memory_order_release);
}

/* ---- worker ---- */

static uint64_t claim_word(uint32_t seq, uint32_t worker)
{
	return (uint64_t)seq << 32 | (worker + 1);
}

/*
 * The claim is read before the request. The other way round, a worker that is stopped between the two while others finish
 * this request and claim the next one would take that claim away and run the wrong request. 0 after a requeue is the one
 * value that comes back: hence the second look. Tries are bounded because a hostile client can change its words all day.
 */
static bool claim_slot(struct pb_lane *l, uint32_t worker, uint32_t slot, uint32_t *ret_seq)
{
	struct pb_lane_down_slot *d = down_slot(l, slot);
	const struct pb_lane_up_slot *u = up_slot(l, slot);

	for (int i = 0; i < 64; i++) {
		uint64_t old = atomic_load_explicit(&d->claim, memory_order_acquire);
		uint32_t seq = atomic_load_explicit(&u->seq, memory_order_acquire);

		if (seq == 0 || seq == atomic_load_explicit(&d->done, memory_order_acquire) || old >> 32 == seq)
			return false;
		if (!atomic_compare_exchange_strong_explicit(&d->claim, &old, claim_word(seq, worker),
							     memory_order_acq_rel, memory_order_relaxed))
			continue;
		if (atomic_load_explicit(&u->seq, memory_order_acquire) == seq &&
		    atomic_load_explicit(&d->done, memory_order_acquire) != seq) {
			*ret_seq = seq;
			return true;
		}
	}
	return false;
}

bool pb_lane_claim(struct pb_lane *l, uint32_t worker, uint32_t *ret_slot, uint32_t *ret_seq)
{
	for (uint32_t i = 0; i < l->geo.slots; i++) {
		uint32_t slot = l->scan + i < l->geo.slots ? l->scan + i : l->scan + i - l->geo.slots;

		if (!claim_slot(l, worker, slot, ret_seq))
			continue;
		l->scan = slot + 1 < l->geo.slots ? slot + 1 : 0;
		*ret_slot = slot;
		return true;
	}
	return false;
}

uint32_t pb_lane_take_request(const struct pb_lane *l, uint32_t slot, uint8_t *buf, uint32_t cap)
{
	const struct pb_lane_up_slot *u = up_slot(l, slot);
	uint32_t len = *(const volatile uint32_t *)&u->len;

	if (len == 0 || len > cap || len > l->geo.slot_bytes)
		return 0;
	memcpy(buf, u->payload, len);
	return len;
}

bool pb_lane_is_cancelled(const struct pb_lane *l, uint32_t slot, uint32_t seq)
{
	return atomic_load_explicit(&up_slot(l, slot)->cancel, memory_order_acquire) == seq;
}

void pb_lane_reply(struct pb_lane *l, uint32_t slot, uint32_t seq, const uint8_t *payload, uint32_t len)
{
	struct pb_lane_down_slot *d = down_slot(l, slot);

	memcpy(d->payload, payload, len);
	d->len = len;
	atomic_store_explicit(&down_head(l)->cpu, my_cpu(), memory_order_relaxed);
	atomic_store_explicit(&d->done, seq, memory_order_seq_cst);
	if (atomic_load_explicit(&up_slot(l, slot)->waiting, memory_order_seq_cst) == seq)
		pb_futex_wake(&d->done, 1);
}

_Atomic uint32_t *pb_lane_bell_word(const struct pb_lane *l)
{
	return &up_head(l)->bell;
}

uint32_t pb_lane_bell(const struct pb_lane *l)
{
	return atomic_load_explicit(&up_head(l)->bell, memory_order_seq_cst);
}

void pb_lane_mark_sleeping(struct pb_lane *l, uint32_t worker, bool sleeping)
{
	if (sleeping)
		atomic_fetch_or_explicit(&down_head(l)->sleepers, 1ull << worker, memory_order_seq_cst);
	else
		atomic_fetch_and_explicit(&down_head(l)->sleepers, ~(1ull << worker), memory_order_seq_cst);
}

void pb_lane_mark_fault(struct pb_lane *l, uint32_t slot, uint32_t seq)
{
	if (slot < l->geo.slots)
		atomic_store_explicit(&down_slot(l, slot)->fault, seq, memory_order_release);
}

void pb_lane_mark_refused(struct pb_lane *l, uint32_t slot, uint32_t seq)
{
	if (slot < l->geo.slots)
		atomic_store_explicit(&down_slot(l, slot)->refused, seq, memory_order_release);
}

/* ---- broker ---- */

void pb_lane_look(const struct pb_lane *l, uint32_t slot, struct pb_lane_peek *ret)
{
	const struct pb_lane_down_slot *d = down_slot(l, slot);
	uint64_t claim = atomic_load_explicit(&d->claim, memory_order_acquire);

	ret->seq = atomic_load_explicit(&up_slot(l, slot)->seq, memory_order_acquire);
	ret->done = atomic_load_explicit(&d->done, memory_order_acquire);
	ret->pending = ret->seq != 0 && ret->seq != ret->done;
	ret->claimed = ret->seq != 0 && (uint32_t)(claim >> 32) == ret->seq && (uint32_t)claim != 0;
	ret->served = ret->claimed && !ret->pending;
	ret->claimed = ret->claimed && ret->pending;
	ret->worker = ((uint32_t)claim - 1) % PB_WORKERS_MAX;
	ret->refused = ret->seq != 0 && atomic_load_explicit(&d->refused, memory_order_acquire) == ret->seq;
	ret->fault = ret->seq != 0 && atomic_load_explicit(&d->fault, memory_order_acquire) == ret->seq;
}

void pb_lane_fail(struct pb_lane *l, uint32_t slot, uint32_t seq, pb_status status, int signal, const char *text)
{
	struct pb_lane_reply r = {.status = status, .signal = signal};
	uint8_t buf[1024];
	uint32_t len;

	pb_text_escape(r.text, sizeof(r.text), text, strlen(text));
	len = pb_lane_encode_reply(&r, buf, l->geo.slot_bytes < sizeof(buf) ? l->geo.slot_bytes : sizeof(buf));
	if (len == 0) {
		r.text[0] = '\0';
		len = pb_lane_encode_reply(&r, buf, l->geo.slot_bytes);
	}
	pb_lane_reply(l, slot, seq, buf, len);
}

/*
 * As claim_slot(): the claim is read before the request, and there is a second look. Else, between the look at the request and
 * the claim, the client might have had its answer and a worker the next request, whose claim this would take away.
 */
bool pb_lane_claim_unserved(struct pb_lane *l, uint32_t slot, uint32_t seq)
{
	struct pb_lane_down_slot *d = down_slot(l, slot);
	const struct pb_lane_up_slot *u = up_slot(l, slot);
	uint64_t old = atomic_load_explicit(&d->claim, memory_order_acquire);

	if (old >> 32 == seq || atomic_load_explicit(&u->seq, memory_order_acquire) != seq ||
	    atomic_load_explicit(&d->done, memory_order_acquire) == seq)
		return false;
	/* By nobody: as a claim without a worker. */
	return atomic_compare_exchange_strong(&d->claim, &old, (uint64_t)seq << 32) &&
	       atomic_load_explicit(&u->seq, memory_order_acquire) == seq &&
	       atomic_load_explicit(&d->done, memory_order_acquire) != seq;
}

void pb_lane_requeue(struct pb_lane *l, uint32_t slot, uint32_t seq)
{
	struct pb_lane_down_slot *d = down_slot(l, slot);
	uint64_t old = atomic_load_explicit(&d->claim, memory_order_acquire);

	atomic_store_explicit(&d->fault, 0, memory_order_relaxed);
	if (old >> 32 == seq)
		atomic_compare_exchange_strong(&d->claim, &old, 0);
	pb_lane_ring(l);
}

void pb_lane_ring(struct pb_lane *l)
{
	atomic_fetch_add_explicit(&up_head(l)->bell, 1, memory_order_seq_cst);
	pb_futex_wake(&up_head(l)->bell, PB_WORKERS_MAX);
}

void pb_lane_rouse(const struct pb_lane *l)
{
	for (uint32_t i = 0; i < l->geo.slots; i++)
		if (atomic_load_explicit(&up_slot(l, i)->waiting, memory_order_acquire))
			pb_futex_wake(&down_slot(l, i)->done, INT32_MAX);
}
