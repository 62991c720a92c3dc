/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Replies of a hostile worker to one run, from the slot to the caller's tensors. The first byte
 * chooses the run, then each reply follows its length in two bytes. Whatever they are: outputs can
 * be read to their last byte, and after they are freed the lane's memory is all there.
 */
#include "tests/fuzz/replay.h"
#include "ipc/checked.h"
#include "tests/unit/client/fake.h"

#define N_IN 3
#define N_OUT 3

static struct fake f;
static struct pt2box_tensor *in[2][N_IN]; /* in the lane, lent */
static float lent[64];

static void set_up(void)
{
	static const int64_t sizes[] = {16}, strides[] = {3};

	fake_connect(&f);
	fake_model(&f, N_IN, N_OUT, 256u << 10, 1u << 20);
	close(f.broker);
	f.broker = -1;
	for (int i = 0; i < N_IN; i++)
		if (pt2box_tensor_alloc(f.m, PT2BOX_FLOAT32, 1, sizes, &in[0][i], NULL) ||
		    pt2box_tensor_lend(PT2BOX_FLOAT32, 1, sizes, strides, lent, &in[1][i], NULL))
			abort();
}

static unsigned touch(const struct pt2box_tensor *t)
{
	const struct pt2box_tensor_info *i = &t->info;
	const uint8_t *p = i->data;
	uint64_t bytes;

	if (!pb_tensor_extent(i->ndim, i->sizes, i->strides, pt2box_dtype_size(i->dtype), &bytes))
		abort();
	return bytes ? p[0] + p[bytes - 1] : 0;
}

static bool take(const uint8_t **data, size_t *size, const uint8_t **reply, uint32_t *len)
{
	if (*size < 2)
		return false;
	*len = (uint32_t)(*data)[0] | (uint32_t)(*data)[1] << 8;
	*len = *len > *size - 2 ? (uint32_t)(*size - 2) : *len;
	*len = *len > f.worker.geo.slot_bytes ? f.worker.geo.slot_bytes : *len;
	*reply = *data + 2;
	*data += 2 + *len;
	*size -= 2 + *len;
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct pt2box_run_options opt = PT2BOX_RUN_OPTIONS_INIT;
	struct pt2box_tensor *out[N_OUT] = {NULL};
	struct pb_lane_client *l;
	struct pb_run r;
	uint64_t up_used;
	unsigned sum = 0;
	pb_status st;

	if (!f.m)
		set_up();
	if (size < 1)
		return 0;
	atomic_store(&f.c->is_lost, false); /* a lane that wants to grow finds that out, again */
	l = f.m->lane;
	up_used = l->up.used;
	l->window_bytes = data[0] & 1 ? 512u << 10 : 4096;
	opt.retries = data[0] >> 1 & 3;
	if (pb_run_init(&r, f.m, in[data[0] >> 3 & 1], N_IN, &opt, NULL) ||
	    pb_run_begin(&r, true, NULL))
		abort();
	data++;
	size--;
	do {
		const uint8_t *reply = (const uint8_t *)"";
		uint32_t len = 0;

		if (!pb_lane_claim(&f.worker, 0, &f.slot, &f.seq))
			abort();
		take(&data, &size, &reply, &len);
		pb_lane_reply(&f.worker, f.slot, f.seq, reply, len);
	} while (!pb_run_step(&r, out, &st, NULL));
	for (int i = 0; i < N_OUT; i++) {
		if (st && out[i])
			abort();
		sum += out[i] ? touch(out[i]) : 0;
		pt2box_tensor_free(out[i]);
	}
	if (l->up.used != up_used || l->down.used || l->free_slots != 15 || r.slot || sum > 6 * 255)
		abort();
	return 0;
}
