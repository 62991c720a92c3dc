/* SPDX-License-Identifier: Apache-2.0 */
/*
 * M31 to M35: a worker that lies to its client and to the broker. The model finds the lane in the worker's memory, which
 * is its own, and writes replies, claims and marks by hand. in[1] says which lie (see test_hostile.c).
 */
#include "ipc/lane.h"
#include "tests/hostile/base.h"

#define HEAD 256

/* ---- finding the lane ---- */

/* Without /proc/self/maps: a futex wait on an address that cannot be read says EFAULT, on one that can EAGAIN. */
static bool readable(const void *p)
{
	struct timespec none = {0, 1};

	return syscall(SYS_futex, p, 0 /* FUTEX_WAIT, shared: it reads */, 0x5a5a1234, &none, NULL, 0) == 0 ||
	       errno != EFAULT;
}

static bool looks_like_lane(const struct pb_lane *l)
{
	uintptr_t in = (uintptr_t)now.in, up = (uintptr_t)l->up, down = (uintptr_t)l->down;

	return l->geo.slots > 0 && l->geo.slots <= PB_LANE_SLOTS_MAX && l->control_bytes % 4096 == 0 && up && down &&
	       up % 4096 == 0 && down % 4096 == 0 && in >= up && in < up + l->up_mapped;
}

static struct pb_lane *find_lane(void)
{
	uint8_t *top = sbrk(0), *p = (uint8_t *)((uintptr_t)top & ~4095ul);

	while (readable(p - 4096))
		p -= 4096;
	for (; p + sizeof(struct pb_lane) <= top; p += 8)
		if (looks_like_lane((struct pb_lane *)(void *)p))
			return (struct pb_lane *)(void *)p;
	return NULL;
}

static struct pb_lane_up_slot *up_slot(struct pb_lane *l, uint32_t i)
{
	return (struct pb_lane_up_slot *)(void *)(l->up + HEAD + (size_t)i * l->slot_stride);
}

static struct pb_lane_down_slot *down_slot(struct pb_lane *l, uint32_t i)
{
	return (struct pb_lane_down_slot *)(void *)(l->down + HEAD + (size_t)i * l->slot_stride);
}

static int my_slot(struct pb_lane *l)
{
	for (uint32_t i = 0; i < l->geo.slots; i++)
		if (up_slot(l, i)->seq && up_slot(l, i)->seq != down_slot(l, i)->done &&
		    down_slot(l, i)->claim >> 32 == up_slot(l, i)->seq)
			return (int)i;
	return -1;
}

/* ---- msgpack by hand ---- */

static uint8_t buf[65536];
static uint32_t len;

static void byte(unsigned b)
{
	buf[len++] = (uint8_t)b;
}

static void big(uint64_t v, int bytes)
{
	while (bytes--)
		byte((unsigned)(v >> (8 * bytes)));
}

static void u64(uint64_t v)
{
	byte(0xcf);
	big(v, 8);
}

static void i64(int64_t v)
{
	byte(0xd3);
	big((uint64_t)v, 8);
}

static void array(unsigned n)
{
	byte(0x90 | n);
}

static void text(const char *s)
{
	byte(0xda);
	big(strlen(s), 2);
	while (*s)
		byte((uint8_t)*s++);
}

/* [status, signal, worker, needed, ns, text, [outputs], [written]]: all but the two lists. */
static void head_of(uint64_t status, uint64_t signal, uint64_t needed, const char *words)
{
	len = 0;
	array(8);
	u64(status);
	u64(signal);
	u64(0);
	u64(needed);
	u64(1000);
	text(words);
}

static void tensor(uint64_t dtype, uint64_t down, uint64_t segment, uint64_t offset, int ndim, const int64_t *sizes,
		   const int64_t *strides)
{
	array(6);
	u64(dtype);
	u64(down);
	u64(segment);
	u64(offset);
	array((unsigned)ndim);
	for (int i = 0; i < ndim; i++)
		i64(sizes[i]);
	array((unsigned)ndim);
	for (int i = 0; i < ndim; i++)
		i64(strides[i]);
}

static void publish(struct pb_lane *l, int slot)
{
	struct pb_lane_down_slot *d = down_slot(l, (uint32_t)slot);
	struct pb_lane_up_slot *u = up_slot(l, (uint32_t)slot);
	uint32_t seq = u->seq;

	memcpy(d->payload, buf, len < l->geo.slot_bytes ? len : l->geo.slot_bytes);
	if (!d->len || d->len <= l->geo.slot_bytes)
		d->len = len;
	d->done = seq;
	syscall(SYS_futex, &d->done, 1 /* FUTEX_WAKE */, 64, NULL, NULL, 0);
	futex_sleep_ms(80); /* until the client has read it; what the worker itself says later is too late */
}

static void one_tensor(uint64_t dtype, uint64_t down, uint64_t segment, uint64_t offset, int ndim, const int64_t *sizes,
		       const int64_t *strides)
{
	head_of(0, 0, 0, "");
	array(1);
	tensor(dtype, down, segment, offset, ndim, sizes, strides);
	array(0);
}

static void written(uint64_t input, uint64_t offset, int64_t size)
{
	const int64_t one = 1, n = N;

	head_of(0, 0, 0, "");
	array(1);
	tensor(6, 1, 0, 0, 1, &n, &one);
	array(1);
	array(2);
	u64(input);
	tensor(6, 1, 0, offset, 1, &size, &one);
}

static struct pb_lane *flip_lane;
static int flip_slot;

/* Changes the reply under the reader's eyes. */
static void *flip(void *arg)
{
	struct pb_lane_down_slot *d = down_slot(flip_lane, (uint32_t)flip_slot);

	for (uint64_t i = 0; i < 20000000; i++) {
		d->len = (uint32_t)(i * 2654435761u);
		d->payload[i % flip_lane->geo.slot_bytes] = (uint8_t)(i * 31);
	}
	return arg;
}

static void flip_on_thread(struct pb_lane *l, int slot)
{
	pthread_t t;

	flip_lane = l;
	flip_slot = slot;
	pthread_create(&t, NULL, flip, NULL);
}

static void claims_in_other_names(struct pb_lane *l, uint32_t seq)
{
	for (uint32_t i = 0; i < l->geo.slots; i++)
		down_slot(l, i)->claim = (uint64_t)seq << 32 | (40 + i);
}

static int attack(void)
{
	static const int64_t huge[2] = {1ll << 62, 1ll << 62}, one[2] = {1, 1}, n[1] = {N}, minus[1] = {-16}, some[2] = {4, 4},
			     odd[2] = {INT64_MAX, INT64_MAX}, far[1] = {1 << 20}, zero[1] = {0};
	struct pb_lane *l = find_lane();
	int slot = l ? my_slot(l) : -1;
	struct pb_lane_down_slot *d;
	uint32_t seq;

	if (slot < 0)
		return 1;
	d = down_slot(l, (uint32_t)slot);
	seq = up_slot(l, (uint32_t)slot)->seq;
	switch ((int)now.in[1]) {
	case 1: /* the product of the sizes overflows */
		one_tensor(6, 1, 0, 0, 2, huge, one);
		break;
	case 2: /* far outside of the segment */
		one_tensor(6, 1, 0, 1ull << 40, 1, n, one);
		break;
	case 3: /* a negative size */
		one_tensor(6, 1, 0, 0, 1, minus, one);
		break;
	case 4: /* a status that there is not */
		head_of(200, 0, 0, "what?");
		array(0);
		array(0);
		break;
	case 5: /* only answers that nobody has asked for yet */
		for (uint32_t i = 0; i < l->geo.slots; i++)
			down_slot(l, i)->done = seq + 1000;
		for (;;)
			futex_sleep_ms(1000);
	case 6: /* an impossible length */
		one_tensor(6, 1, 0, 0, 1, n, one);
		d->len = 0xffffffff;
		break;
	case 7: /* two thousand million outputs */
		head_of(0, 0, 0, "");
		byte(0xdd);
		big(0x7fffffff, 4);
		break;
	case 8: /* claims in the names of workers that there are not, then death */
		claims_in_other_names(l, seq);
		abort();
	case 9: /* the whole control part is garbage; then it goes on as if nothing were */
		memset(l->down, 0xa5, l->control_bytes);
		return 0;
	case 10: /* the answer changes while it is read */
		flip_on_thread(l, slot);
		return 0;
	case 11: /* text for terminals */
		head_of(27, 0, 0, "\033[2J\033]0;owned\007\r\n\xff\xfe\x9b" "31m");
		array(0);
		array(0);
		break;
	case 12: /* an input that there is not was written */
		written(4000, 0, N);
		break;
	case 13: /* a written input larger than the input */
		written(0, 0, 8192);
		break;
	case 14: /* needs ever more room */
		head_of(40, 0, 1ull << 40, "");
		array(0);
		array(0);
		break;
	case 15: /* a dtype that there is not */
		one_tensor(99, 1, 0, 0, 1, n, one);
		break;
	case 16: /* deeper than anything */
		len = 0;
		for (int i = 0; i < 1000; i++)
			byte(0x91);
		break;
	case 17: /* success without outputs */
		head_of(0, 0, 0, "");
		array(0);
		array(0);
		break;
	case 18: /* an output that is None: its right */
		head_of(0, 0, 0, "");
		array(1);
		byte(0xc0);
		array(0);
		break;
	case 19: /* strides whose extent overflows */
		one_tensor(6, 1, 0, 0, 2, some, odd);
		break;
	case 20: /* more room than numbers can say */
		head_of(40, 0, UINT64_MAX, "");
		array(0);
		array(0);
		break;
	case 21: /* a segment that there is not */
		one_tensor(6, 1, 4242, 0, 1, n, one);
		break;
	case 22: /* a signal that there is not */
		head_of(22, 100000, 0, "died");
		array(0);
		array(0);
		break;
	case 23: /* in the name of the broker: a status that only it may give */
		head_of(8, 0, 0, "the broker is gone");
		array(0);
		array(0);
		break;
	case 24: /* just past the end of the segment */
		one_tensor(6, 1, 0, l->geo.down_bytes - 63, 1, n, one);
		break;
	case 25: /* the client's own bytes, all of them, as output */
		one_tensor(0, 0, 0, 0, 1, far, one);
		break;
	case 26: /* a little more room, again and again */
		head_of(40, 0, 1 << 20, "");
		array(0);
		array(0);
		break;
	case 27: /* nothing at all */
		len = 0;
		break;
	case 28: /* a stray fault mark and a death by SIGSEGV: the run is repeated, once */
		d->fault = seq;
		*(volatile int *)8 = 1;
		return 0;
	case 29: /* refused memory, it says, and dies */
		d->refused = seq;
		abort();
	case 30: /* nothing but zeros in every dimension */
		one_tensor(6, 1, 0, 0, 1, zero, zero);
		break;
	case 31: /* wakes its client in a storm and never answers */
		for (;;)
			syscall(SYS_futex, &d->done, 1, 64, NULL, NULL, 0);
	case 32: /* success, when it is told to end: claims taken back all the time */
		for (;;)
			d->claim = 0;
	case 33: /* claims of the future: the slots' next requests are taken already */
		for (uint32_t i = 0; i < l->geo.slots; i++)
			for (uint32_t k = 1; k < 4; k++)
				if (i != (uint32_t)slot)
					down_slot(l, i)->claim = (uint64_t)(seq + k) << 32 | 63;
		d->claim = (uint64_t)(seq + 1) << 32 | 63;
		return 0;
	case 34: /* an answer that is there only while the client sleeps, which looks every 100 ms, and nobody wakes it */
		d->len = 0;
		for (int ms = 0;; ms += 5) {
			d->done = ms % 100 >= 40 && ms % 100 < 65 ? seq : seq - 1;
			futex_sleep_ms(5);
		}
	default:
		return 1;
	}
	publish(l, slot);
	return 0;
}
