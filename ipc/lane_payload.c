/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a lane's slots carry: requests and replies in msgpack. Both ends decode hostile bytes: the structure is scanned
 * before the library sees it, every count is bounded, and memory is reused from call to call.
 *
 *	request  [window segment, window offset, window bytes, fetch, [tensor...]]
 *	reply    [status, signal, worker, needed bytes, run ns, text, [tensor or nil...], [[input, tensor]...]]
 *	tensor   [dtype, down, segment, offset, [size...], [stride...]]
 */
#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/checked.h"
#include "ipc/lane.h"
#include "ipc/messages.h"

struct out {
	uint8_t *buf;
	uint32_t len, cap;
};

static int out_write(void *data, const char *bytes, size_t n)
{
	struct out *o = data;

	if (n > o->cap - o->len)
		return -1;
	memcpy(o->buf + o->len, bytes, n);
	o->len += (uint32_t)n;
	return 0;
}

static int pack_tensor(msgpack_packer *pk, const struct pb_lane_tensor *t)
{
	int r;

	if (t->none)
		return msgpack_pack_nil(pk);
	r = msgpack_pack_array(pk, 6);
	r |= msgpack_pack_int32(pk, t->dtype);
	r |= msgpack_pack_uint8(pk, t->down);
	r |= msgpack_pack_uint32(pk, t->segment);
	r |= msgpack_pack_uint64(pk, t->offset);
	r |= msgpack_pack_array(pk, (size_t)t->ndim);
	for (int32_t i = 0; i < t->ndim; i++)
		r |= msgpack_pack_int64(pk, t->sizes[i]);
	r |= msgpack_pack_array(pk, (size_t)t->ndim);
	for (int32_t i = 0; i < t->ndim; i++)
		r |= msgpack_pack_int64(pk, t->strides[i]);
	return r;
}

uint32_t pb_lane_encode_request(const struct pb_lane_request *q, uint8_t *buf, uint32_t cap)
{
	struct out o = {buf, 0, cap};
	msgpack_packer pk;
	int r;

	msgpack_packer_init(&pk, &o, out_write);
	r = msgpack_pack_array(&pk, 5);
	r |= msgpack_pack_uint32(&pk, q->window_segment);
	r |= msgpack_pack_uint64(&pk, q->window_offset);
	r |= msgpack_pack_uint64(&pk, q->window_bytes);
	r |= msgpack_pack_uint32(&pk, q->fetch);
	r |= msgpack_pack_array(&pk, q->n_inputs);
	for (uint32_t i = 0; i < q->n_inputs; i++)
		r |= pack_tensor(&pk, &q->inputs[i]);
	return r ? 0 : o.len;
}

uint32_t pb_lane_encode_reply(const struct pb_lane_reply *p, uint8_t *buf, uint32_t cap)
{
	struct out o = {buf, 0, cap};
	size_t text = strnlen(p->text, sizeof(p->text));
	msgpack_packer pk;
	int r;

	msgpack_packer_init(&pk, &o, out_write);
	r = msgpack_pack_array(&pk, 8);
	r |= msgpack_pack_uint32(&pk, p->status);
	r |= msgpack_pack_int32(&pk, p->signal);
	r |= msgpack_pack_uint32(&pk, p->worker);
	r |= msgpack_pack_uint64(&pk, p->needed_bytes);
	r |= msgpack_pack_uint64(&pk, p->run_ns);
	r |= msgpack_pack_str(&pk, text);
	r |= msgpack_pack_str_body(&pk, p->text, text);
	r |= msgpack_pack_array(&pk, p->n_outputs);
	for (uint32_t i = 0; i < p->n_outputs; i++)
		r |= pack_tensor(&pk, &p->outputs[i]);
	r |= msgpack_pack_array(&pk, p->n_written);
	for (uint32_t i = 0; i < p->n_written; i++) {
		r |= msgpack_pack_array(&pk, 2);
		r |= msgpack_pack_uint32(&pk, p->written[i].input);
		r |= pack_tensor(&pk, &p->written[i].copy);
	}
	return r ? 0 : o.len;
}

struct pb_lane_decoder {
	msgpack_zone zone;
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
	if (!msgpack_zone_init(&d->zone, 16384)) {
		free(d);
		return NULL;
	}
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
	msgpack_zone_destroy(&d->zone);
	free(d->tensors);
	free(d->written);
	free(d);
	return NULL;
}

/* Latches the first fault, so that a decoder reads straight down. */
struct in {
	const msgpack_object *at, *end;
	bool bad;
};

static struct in in_array(const msgpack_object *o, uint32_t n)
{
	if (o->type != MSGPACK_OBJECT_ARRAY || o->via.array.size != n)
		return (struct in){NULL, NULL, true};
	return (struct in){o->via.array.ptr, o->via.array.ptr + n, false};
}

static const msgpack_object *next(struct in *in, msgpack_object_type type)
{
	static const msgpack_object zero_int = {.type = MSGPACK_OBJECT_POSITIVE_INTEGER};
	static const msgpack_object empty = {.type = MSGPACK_OBJECT_ARRAY};
	const msgpack_object *o;

	if (!in->bad && in->at < in->end && in->at->type == type) {
		o = in->at++;
		return o;
	}
	in->bad = true;
	return type == MSGPACK_OBJECT_ARRAY || type == MSGPACK_OBJECT_STR ? &empty : &zero_int;
}

static uint64_t next_uint(struct in *in, uint64_t max)
{
	uint64_t v = next(in, MSGPACK_OBJECT_POSITIVE_INTEGER)->via.u64;

	if (v > max)
		in->bad = true;
	return in->bad ? 0 : v;
}

static bool read_dims(const msgpack_object *o, int32_t *ndim, int64_t *dst)
{
	struct in in;

	if (o->type != MSGPACK_OBJECT_ARRAY || o->via.array.size > PT2BOX_MAX_DIMS)
		return false;
	*ndim = (int32_t)o->via.array.size;
	in = in_array(o, o->via.array.size);
	for (int32_t i = 0; i < *ndim; i++)
		dst[i] = (int64_t)next_uint(&in, INT64_MAX);
	return !in.bad;
}

static bool read_tensor(const msgpack_object *o, bool none_ok, struct pb_lane_tensor *t)
{
	struct in in;
	int32_t ndim2 = 0;
	uint64_t extent;

	if (o->type == MSGPACK_OBJECT_NIL) {
		t->none = true;
		return none_ok;
	}
	t->none = false;
	in = in_array(o, 6);
	t->dtype = (int32_t)next_uint(&in, 255);
	t->down = next_uint(&in, 1);
	t->segment = (uint32_t)next_uint(&in, UINT32_MAX);
	t->offset = next_uint(&in, INT64_MAX);
	if (in.bad || !read_dims(in.at, &t->ndim, t->sizes) || !read_dims(in.at + 1, &ndim2, t->strides))
		return false;
	return ndim2 == t->ndim && pt2box_dtype_size(t->dtype) != 0 &&
	       pb_tensor_extent(t->ndim, t->sizes, t->strides, pt2box_dtype_size(t->dtype), &extent);
}

/* An array of at most max_tensors tensors into d->tensors. */
static bool read_tensors(struct pb_lane_decoder *d, const msgpack_object *o, bool none_ok, uint32_t *ret_n)
{
	if (o->type != MSGPACK_OBJECT_ARRAY || o->via.array.size > d->max_tensors)
		return false;
	for (uint32_t i = 0; i < o->via.array.size; i++)
		if (!read_tensor(&o->via.array.ptr[i], none_ok, &d->tensors[i]))
			return false;
	*ret_n = o->via.array.size;
	return true;
}

static bool unpack(struct pb_lane_decoder *d, const uint8_t *buf, uint32_t len, msgpack_object *ret)
{
	size_t off = 0;

	if (pb_msgpack_scan(buf, len, 6))
		return false;
	msgpack_zone_clear(&d->zone);
	return msgpack_unpack((const char *)buf, len, &off, &d->zone, ret) == MSGPACK_UNPACK_SUCCESS;
}

pb_status pb_lane_decode_request(struct pb_lane_decoder *d, const uint8_t *buf, uint32_t len,
				 const struct pb_lane_request **ret)
{
	struct pb_lane_request *q = &d->request;
	msgpack_object o;
	struct in in;

	if (!unpack(d, buf, len, &o))
		return PT2BOX_PROTOCOL;
	in = in_array(&o, 5);
	q->window_segment = (uint32_t)next_uint(&in, UINT32_MAX);
	q->window_offset = next_uint(&in, INT64_MAX);
	q->window_bytes = next_uint(&in, INT64_MAX);
	q->fetch = (uint32_t)next_uint(&in, UINT32_MAX);
	if (in.bad || !read_tensors(d, in.at, false, &q->n_inputs))
		return PT2BOX_PROTOCOL;
	q->inputs = d->tensors;
	*ret = q;
	return PT2BOX_OK;
}

static bool read_written(struct pb_lane_decoder *d, const msgpack_object *o, uint32_t *ret_n)
{
	if (o->type != MSGPACK_OBJECT_ARRAY || o->via.array.size > d->max_tensors)
		return false;
	for (uint32_t i = 0; i < o->via.array.size; i++) {
		struct in in = in_array(&o->via.array.ptr[i], 2);

		d->written[i].input = (uint32_t)next_uint(&in, PB_LANE_TENSORS_MAX);
		if (in.bad || !read_tensor(in.at, false, &d->written[i].copy))
			return false;
	}
	*ret_n = o->via.array.size;
	return true;
}

pb_status pb_lane_decode_reply(struct pb_lane_decoder *d, const uint8_t *buf, uint32_t len,
			       const struct pb_lane_reply **ret)
{
	struct pb_lane_reply *p = &d->reply;
	const msgpack_object *text;
	msgpack_object o;
	struct in in;

	if (!unpack(d, buf, len, &o))
		return PT2BOX_PROTOCOL;
	in = in_array(&o, 8);
	p->status = (uint32_t)next_uint(&in, 255);
	p->signal = (int32_t)next_uint(&in, 255);
	p->worker = (uint32_t)next_uint(&in, PB_WORKERS_MAX - 1);
	p->needed_bytes = next_uint(&in, 1ull << 40);
	p->run_ns = next_uint(&in, UINT64_MAX);
	text = next(&in, MSGPACK_OBJECT_STR);
	pb_text_escape(p->text, sizeof(p->text), in.bad ? "" : text->via.str.ptr, in.bad ? 0 : text->via.str.size);
	if (in.bad || !read_tensors(d, in.at, true, &p->n_outputs) || !read_written(d, in.at + 1, &p->n_written))
		return PT2BOX_PROTOCOL;
	p->outputs = d->tensors;
	p->written = d->written;
	*ret = p;
	return PT2BOX_OK;
}

uint8_t *pb_lane_tensor_data(const struct pb_lane *l, const struct pb_lane_tensor *t, uint64_t *ret_bytes)
{
	static uint8_t nothing[64] __attribute__((aligned(64)));
	uint64_t bytes;

	if (t->none || !pb_tensor_extent(t->ndim, t->sizes, t->strides, pt2box_dtype_size(t->dtype), &bytes))
		return NULL;
	*ret_bytes = bytes;
	return bytes ? pb_lane_span(l, t->down, t->segment, t->offset, bytes) : nothing;
}
