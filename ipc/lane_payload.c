/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a lane's slots carry: requests and replies in msgpack. Both ends decode hostile bytes,
 *straight into structs whose memory is reused from call to call; every count is bounded before
 *anything is stored.
 *
 *	request  [window segment, window offset, window bytes, fetch, [tensor...], seed (only where there is one)]
 *	reply    [status, signal, worker, needed bytes, run ns, text, [tensor or nil...], [[input,
 *tensor]...]] tensor   [dtype, down, segment, offset, [size...], [stride...]]
 */
#include <stdlib.h>
#include <string.h>

#include "ipc/checked.h"
#include "ipc/lane.h"
#include "ipc/pack.h"

/* ---- encode ---- */

static void pack_dims(struct pb_pack *p, int32_t ndim, const int64_t *dims)
{
	pb_pack_array(p, (uint32_t)ndim);
	for (int32_t i = 0; i < ndim; i++)
		pb_pack_int(p, dims[i]);
}

static void pack_tensor(struct pb_pack *p, const struct pb_lane_tensor *t)
{
	if (t->none) {
		pb_pack_nil(p);
		return;
	}
	pb_pack_array(p, 6);
	pb_pack_int(p, t->dtype);
	pb_pack_uint(p, t->down);
	pb_pack_uint(p, t->segment);
	pb_pack_uint(p, t->offset);
	pack_dims(p, t->ndim, t->sizes);
	pack_dims(p, t->ndim, t->strides);
}

static uint32_t packed(const struct pb_pack *p, const uint8_t *buf)
{
	return p->full ? 0 : (uint32_t)(p->at - buf);
}

uint32_t pb_lane_encode_request(const struct pb_lane_request *q, uint8_t *buf, uint32_t cap)
{
	struct pb_pack p = {buf, buf + cap, false};

	pb_pack_array(&p, q->seeded ? 6 : 5);
	pb_pack_uint(&p, q->window_segment);
	pb_pack_uint(&p, q->window_offset);
	pb_pack_uint(&p, q->window_bytes);
	pb_pack_uint(&p, q->fetch);
	pb_pack_array(&p, q->n_inputs);
	for (uint32_t i = 0; i < q->n_inputs; i++)
		pack_tensor(&p, &q->inputs[i]);
	if (q->seeded)
		pb_pack_uint(&p, q->seed);
	return packed(&p, buf);
}

uint32_t pb_lane_encode_reply(const struct pb_lane_reply *r, uint8_t *buf, uint32_t cap)
{
	struct pb_pack p = {buf, buf + cap, false};

	pb_pack_array(&p, 8);
	pb_pack_uint(&p, r->status);
	pb_pack_int(&p, r->signal);
	pb_pack_uint(&p, r->worker);
	pb_pack_uint(&p, r->needed_bytes);
	pb_pack_uint(&p, r->run_ns);
	pb_pack_str(&p, r->text, (uint32_t)strnlen(r->text, sizeof(r->text)));
	pb_pack_array(&p, r->n_outputs);
	for (uint32_t i = 0; i < r->n_outputs; i++)
		pack_tensor(&p, &r->outputs[i]);
	pb_pack_array(&p, r->n_written);
	for (uint32_t i = 0; i < r->n_written; i++) {
		pb_pack_array(&p, 2);
		pb_pack_uint(&p, r->written[i].input);
		pack_tensor(&p, &r->written[i].copy);
	}
	return packed(&p, buf);
}

/* ---- decode ---- */

struct pb_lane_decoder {
	uint32_t max_tensors;
	struct pb_lane_tensor *tensors;
	struct pb_lane_written *written;
	struct pb_lane_request request;
	struct pb_lane_reply reply;
};

struct pb_lane_decoder *pb_lane_decoder_new(uint32_t max_tensors)
{
	struct pb_lane_decoder *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	if (max_tensors < 1)
		max_tensors = 1;
	d->max_tensors = max_tensors;
	d->tensors = calloc(max_tensors, sizeof(*d->tensors));
	d->written = calloc(max_tensors, sizeof(*d->written));
	if (!d->tensors || !d->written)
		return pb_lane_decoder_free(d);
	return d;
}

struct pb_lane_decoder *pb_lane_decoder_free(struct pb_lane_decoder *d)
{
	if (!d)
		return NULL;
	free(d->tensors);
	free(d->written);
	free(d);
	return NULL;
}

/* An array of exactly @n items. */
static void expect_array(struct pb_unpack *u, uint32_t n)
{
	if (pb_unpack_array(u, n) != n)
		u->bad = true;
}

static void unpack_dims(struct pb_unpack *u, uint32_t n, int64_t *dims)
{
	for (uint32_t i = 0; i < n; i++)
		dims[i] = (int64_t)pb_unpack_uint(u, INT64_MAX);
}

static void unpack_tensor(struct pb_unpack *u, bool none_ok, struct pb_lane_tensor *t)
{
	uint64_t extent;
	uint32_t n;

	t->none = none_ok && pb_unpack_nil(u);
	if (t->none)
		return;
	expect_array(u, 6);
	t->dtype = (int32_t)pb_unpack_uint(u, 255);
	t->down = pb_unpack_uint(u, 1);
	t->segment = (uint32_t)pb_unpack_uint(u, UINT32_MAX);
	t->offset = pb_unpack_uint(u, INT64_MAX);
	n = pb_unpack_array(u, PT2BOX_MAX_DIMS);
	unpack_dims(u, n, t->sizes);
	expect_array(u, n);
	unpack_dims(u, n, t->strides);
	t->ndim = (int32_t)n;
	if (!u->bad && (pt2box_dtype_size(t->dtype) == 0 ||
			!pb_tensor_extent(t->ndim, t->sizes, t->strides,
					  pt2box_dtype_size(t->dtype), &extent)))
		u->bad = true;
}

/* An array of at most max_tensors tensors into d->tensors. */
static uint32_t unpack_tensors(struct pb_unpack *u, struct pb_lane_decoder *d, bool none_ok)
{
	uint32_t n = pb_unpack_array(u, d->max_tensors);

	for (uint32_t i = 0; i < n && !u->bad; i++)
		unpack_tensor(u, none_ok, &d->tensors[i]);
	return n;
}

static uint32_t unpack_written(struct pb_unpack *u, struct pb_lane_decoder *d)
{
	uint32_t n = pb_unpack_array(u, d->max_tensors);

	for (uint32_t i = 0; i < n && !u->bad; i++) {
		expect_array(u, 2);
		d->written[i].input = (uint32_t)pb_unpack_uint(u, PB_LANE_TENSORS_MAX);
		unpack_tensor(u, false, &d->written[i].copy);
	}
	return n;
}

pb_status pb_lane_decode_request(struct pb_lane_decoder *d, const uint8_t *buf, uint32_t len,
				 const struct pb_lane_request **ret)
{
	struct pb_unpack u = {buf, buf + len, false};
	struct pb_lane_request *q = &d->request;
	uint32_t n = pb_unpack_array(&u, 6);

	u.bad |= n < 5;
	q->window_segment = (uint32_t)pb_unpack_uint(&u, UINT32_MAX);
	q->window_offset = pb_unpack_uint(&u, INT64_MAX);
	q->window_bytes = pb_unpack_uint(&u, INT64_MAX);
	q->fetch = (uint32_t)pb_unpack_uint(&u, UINT32_MAX);
	q->n_inputs = unpack_tensors(&u, d, false);
	q->seeded = n == 6;
	q->seed = q->seeded ? pb_unpack_uint(&u, UINT64_MAX) : 0;
	if (u.bad || u.at != u.end)
		return PT2BOX_PROTOCOL;
	q->inputs = d->tensors;
	*ret = q;
	return PT2BOX_OK;
}

pb_status pb_lane_decode_reply(struct pb_lane_decoder *d, const uint8_t *buf, uint32_t len,
			       const struct pb_lane_reply **ret)
{
	struct pb_unpack u = {buf, buf + len, false};
	struct pb_lane_reply *p = &d->reply;
	const char *text;
	uint32_t n;

	expect_array(&u, 8);
	p->status = (uint32_t)pb_unpack_uint(&u, 255);
	p->signal = (int32_t)pb_unpack_uint(&u, 255);
	p->worker = (uint32_t)pb_unpack_uint(&u, PB_WORKERS_MAX - 1);
	p->needed_bytes = pb_unpack_uint(&u, 1ull << 40);
	p->run_ns = pb_unpack_uint(&u, UINT64_MAX);
	text = pb_unpack_str(&u, &n);
	pb_text_escape(p->text, sizeof(p->text), text, n);
	p->n_outputs = unpack_tensors(&u, d, true);
	p->n_written = unpack_written(&u, d);
	if (u.bad || u.at != u.end)
		return PT2BOX_PROTOCOL;
	p->outputs = d->tensors;
	p->written = d->written;
	*ret = p;
	return PT2BOX_OK;
}

uint8_t *pb_lane_tensor_data(const struct pb_lane *l, const struct pb_lane_tensor *t,
			     uint64_t *ret_bytes)
{
	static uint8_t nothing[64] __attribute__((aligned(64)));
	uint64_t bytes;

	if (t->none ||
	    !pb_tensor_extent(t->ndim, t->sizes, t->strides, pt2box_dtype_size(t->dtype), &bytes))
		return NULL;
	*ret_bytes = bytes;
	return bytes ? pb_lane_span(l, t->down, t->segment, t->offset, bytes) : nothing;
}
