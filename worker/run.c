/* SPDX-License-Identifier: Apache-2.0 */
/* See run.h. Outputs are described by where they are: in the window, in the client's inputs, or copied into the window. */
#include "worker/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/checked.h"
#include "worker/interpose.h"
#include "worker/ops.h"

#define DEVICE_CPU 0
#define LAYOUT_STRIDED 0
#define ALIGN 64ull

/* A range of private memory that holds outputs: overlapping outputs share one, so that they stay aliased. */
struct pb_block {
	uintptr_t begin, end;
	uint64_t offset; /* where it goes, bytes from the window's begin */
};

pb_status pb_runner_init(struct pb_runner *r, struct pb_model *m, struct pt2box_error *err)
{
	size_t in = m->n_inputs + 1, out = m->n_outputs + 1;

	memset(r, 0, sizeof(*r));
	r->model = m;
	r->in = calloc(in, sizeof(*r->in));
	r->out = calloc(out, sizeof(*r->out));
	r->out_desc = calloc(out, sizeof(*r->out_desc));
	r->written = calloc(in, sizeof(*r->written));
	r->blocks = calloc(out, sizeof(*r->blocks));
	r->copies = calloc(in, sizeof(*r->copies));
	r->copy_bytes = calloc(in, sizeof(*r->copy_bytes));
	if (!r->in || !r->out || !r->out_desc || !r->written || !r->blocks || !r->copies || !r->copy_bytes)
		return pb_error_set(err, PT2BOX_MODEL_OOM, "no memory for %zu inputs and %zu outputs", m->n_inputs,
				    m->n_outputs);
	return PT2BOX_OK;
}

static void fail(struct pb_lane_reply *reply, pb_status status, const char *fmt, ...) PB_PRINTF(3, 4);
static void fail(struct pb_lane_reply *reply, pb_status status, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(reply->text, sizeof(reply->text), fmt, ap);
	va_end(ap);
	reply->status = status;
}

/* ---- inputs ---- */

static bool strides_fit(const struct pb_sig_input *s, const struct pb_lane_tensor *t)
{
	int64_t contiguous = 1;

	for (int32_t i = t->ndim - 1; i >= 0; i--) {
		int64_t want = s->dims[i].stride >= 0 ? s->dims[i].stride : contiguous;

		/* The stride of a dimension of one element, or of an empty tensor, is never used. */
		if (t->sizes[i] > 1 && t->strides[i] != want)
			return false;
		contiguous = want * (t->sizes[i] > 0 ? t->sizes[i] : 1);
	}
	return true;
}

static bool is_empty(const struct pb_lane_tensor *t)
{
	for (int32_t i = 0; i < t->ndim; i++)
		if (t->sizes[i] == 0)
			return true;
	return false;
}

static bool check_input(const struct pb_manifest *mf, uint32_t i, const struct pb_lane_tensor *t,
			struct pb_lane_reply *reply)
{
	const struct pb_sig_input *s = &mf->inputs[i];

	if (s->dtype >= 0 && t->dtype != s->dtype) {
		fail(reply, PT2BOX_BAD_TENSOR, "input %u is %s, the package takes %s", i, pt2box_dtype_name(t->dtype),
		     pt2box_dtype_name(s->dtype));
		return false;
	}
	if (s->ndim < 0)
		return true;
	if (t->ndim != s->ndim) {
		fail(reply, PT2BOX_BAD_TENSOR, "input %u has %d dimensions, the package takes %d", i, t->ndim, s->ndim);
		return false;
	}
	for (int32_t d = 0; d < t->ndim; d++)
		if (t->sizes[d] < s->dims[d].lo || t->sizes[d] > s->dims[d].hi) {
			if (s->dims[d].lo == s->dims[d].hi)
				fail(reply, PT2BOX_BAD_TENSOR, "input %u has size %lld in dimension %d, the package takes %lld",
				     i, (long long)t->sizes[d], d, (long long)s->dims[d].lo);
			else
				fail(reply, PT2BOX_BAD_TENSOR,
				     "input %u has size %lld in dimension %d, the package takes %lld to %lld", i,
				     (long long)t->sizes[d], d, (long long)s->dims[d].lo, (long long)s->dims[d].hi);
			return false;
		}
	if (!is_empty(t) && !strides_fit(s, t)) {
		fail(reply, PT2BOX_BAD_TENSOR, "input %u has strides that the package was not compiled for", i);
		return false;
	}
	return true;
}

/* Private copy of an input's whole extent, so that the model may write it. */
static void *copy_input(struct pb_runner *r, uint32_t i, const void *src, uint64_t bytes)
{
	if (r->copy_bytes[i] < bytes) {
		free(r->copies[i]);
		r->copies[i] = aligned_alloc(ALIGN, (bytes + 2 * ALIGN - 1) & ~(ALIGN - 1));
		r->copy_bytes[i] = r->copies[i] ? bytes : 0;
	}
	if (r->copies[i])
		memcpy(r->copies[i], src, bytes);
	return r->copies[i];
}

static bool lend_inputs(struct pb_runner *r, const struct pb_lane *l, const struct pb_lane_request *q,
			struct pb_lane_reply *reply)
{
	const struct pb_manifest *mf = r->model->manifest;
	bool checked = mf->has_signature && mf->n_inputs == r->model->n_inputs;

	if (q->n_inputs != r->model->n_inputs) {
		fail(reply, PT2BOX_BAD_TENSOR, "the package takes %zu inputs, not %u", r->model->n_inputs, q->n_inputs);
		return false;
	}
	for (uint32_t i = 0; i < q->n_inputs; i++) {
		const struct pb_lane_tensor *t = &q->inputs[i];
		uint64_t bytes;
		void *data;

		if (checked && !check_input(mf, i, t, reply))
			return false;
		data = t->down ? NULL : pb_lane_tensor_data(l, t, &bytes);
		if (!data) {
			fail(reply, PT2BOX_BAD_TENSOR, "input %u does not lie inside the lane", i);
			return false;
		}
		if (r->copy_inputs && bytes)
			data = copy_input(r, i, data, bytes);
		if (!data || r->model->backend->create_from_blob(data, t->ndim, t->sizes, t->strides, 0, t->dtype,
								 DEVICE_CPU, -1, &r->in[i], LAYOUT_STRIDED, NULL, 0)) {
			fail(reply, PT2BOX_MODEL_OOM, "no memory for input %u", i);
			return false;
		}
	}
	return true;
}

/* ---- outputs ---- */

struct place {
	uint8_t *data;
	uint64_t bytes;
};

static bool describe(struct pb_runner *r, size_t i, struct place *p, struct pb_lane_reply *reply)
{
	struct pb_backend *b = r->model->backend;
	struct pb_lane_tensor *t = &r->out_desc[i];
	int64_t ndim, *sizes, *strides;
	void *data;

	memset(p, 0, sizeof(*p));
	t->none = r->out[i] == NULL;
	if (t->none)
		return true;
	if (b->get_data_ptr(r->out[i], &data) || b->get_dtype(r->out[i], &t->dtype) || b->get_dim(r->out[i], &ndim) ||
	    b->get_sizes(r->out[i], &sizes) || b->get_strides(r->out[i], &strides) || ndim < 0 ||
	    ndim > PT2BOX_MAX_DIMS) {
		fail(reply, PT2BOX_MODEL_ERROR, "output %zu cannot be described", i);
		return false;
	}
	t->ndim = (int32_t)ndim;
	memcpy(t->sizes, sizes, (size_t)ndim * sizeof(*sizes));
	memcpy(t->strides, strides, (size_t)ndim * sizeof(*strides));
	if (!pt2box_dtype_size(t->dtype) ||
	    !pb_tensor_extent(t->ndim, t->sizes, t->strides, pt2box_dtype_size(t->dtype), &p->bytes)) {
		fail(reply, PT2BOX_BAD_TENSOR, "output %zu has a shape that cannot be", i);
		return false;
	}
	p->data = data;
	return true;
}

/* The tensor lies in one of the lane's segments of this direction: say where. */
static bool locate(const struct pb_lane *l, bool down, const struct place *p, struct pb_lane_tensor *t)
{
	const struct pb_lane_segment *seg = down ? l->down_seg : l->up_seg;

	for (int i = 0; i <= PB_LANE_SEGMENTS_MAX; i++)
		if (seg[i].base && p->data >= seg[i].base &&
		    pb_span_fits((uint64_t)(p->data - seg[i].base), p->bytes, seg[i].bytes)) {
			t->down = down;
			t->segment = seg[i].id;
			t->offset = (uint64_t)(p->data - seg[i].base);
			return true;
		}
	return false;
}

/*
 * The tensor lies in a copy of an input: say where it would lie in the input itself. The client puts there what was written,
 * so that outputs and inputs stay aliased.
 */
static bool locate_copy(const struct pb_runner *r, const struct pb_lane *l, const struct pb_lane_request *q,
			const struct place *p, struct pb_lane_tensor *t)
{
	for (uint32_t i = 0; r->copy_inputs && i < q->n_inputs; i++) {
		const uint8_t *copy = r->copies[i];
		uint64_t bytes;

		if (!copy || p->data < copy || !pb_lane_tensor_data(l, &q->inputs[i], &bytes) ||
		    !pb_span_fits((uint64_t)(p->data - copy), p->bytes, bytes))
			continue;
		t->down = false;
		t->segment = q->inputs[i].segment;
		t->offset = q->inputs[i].offset + (uint64_t)(p->data - copy);
		return true;
	}
	return false;
}

static int by_begin(const void *a, const void *b)
{
	const struct pb_block *x = a, *y = b;

	return (x->begin > y->begin) - (x->begin < y->begin);
}

/* Merge overlapping ranges; returns how many remain. */
static size_t merge_blocks(struct pb_block *b, size_t n)
{
	size_t k = 0;

	qsort(b, n, sizeof(*b), by_begin);
	for (size_t i = 1; i < n; i++) {
		if (b[i].begin < b[k].end) {
			if (b[i].end > b[k].end)
				b[k].end = b[i].end;
		} else {
			b[++k] = b[i];
		}
	}
	return n ? k + 1 : 0;
}

static uint64_t align_up(uint64_t v)
{
	return (v + ALIGN - 1) & ~(ALIGN - 1);
}

struct window {
	uint8_t *base;
	uint32_t segment;
	uint64_t offset, bytes, used;
};

static bool inside_window(const struct window *w, const struct place *p)
{
	return w->base && p->data >= w->base && pb_span_fits((uint64_t)(p->data - w->base), p->bytes, w->bytes);
}

/*
 * Say where every output is, and copy into the window what is in private memory. false with WINDOW and the bytes needed
 * if there is no room; nothing has been copied then.
 */
static bool place_outputs(struct pb_runner *r, const struct pb_lane *l, const struct pb_lane_request *q,
			  struct window *w, struct place *places, struct pb_lane_reply *reply)
{
	size_t n_out = r->model->n_outputs, n_blocks = 0;
	uint64_t need;

	for (size_t i = 0; i < n_out; i++) {
		struct place *p = &places[i];

		if (r->out_desc[i].none || p->bytes == 0) {
			r->out_desc[i].down = true;
			r->out_desc[i].segment = w->segment;
			r->out_desc[i].offset = w->offset;
			continue;
		}
		if (inside_window(w, p) ? locate(l, true, p, &r->out_desc[i]) :
					  locate(l, false, p, &r->out_desc[i]) ||
						  locate_copy(r, l, q, p, &r->out_desc[i])) {
			p->bytes = 0;
			continue;
		}
		r->blocks[n_blocks++] = (struct pb_block){(uintptr_t)p->data, (uintptr_t)p->data + p->bytes, 0};
	}
	n_blocks = merge_blocks(r->blocks, n_blocks);
	need = align_up(w->used);
	for (size_t k = 0; k < n_blocks; k++) {
		r->blocks[k].offset = need;
		need = align_up(need + (r->blocks[k].end - r->blocks[k].begin));
	}
	if (n_blocks && need > w->bytes) {
		reply->needed_bytes = need;
		return false;
	}
	for (size_t k = 0; k < n_blocks; k++)
		memcpy(w->base + r->blocks[k].offset, (void *)r->blocks[k].begin, r->blocks[k].end - r->blocks[k].begin);
	for (size_t i = 0; i < n_out; i++) {
		uintptr_t at = (uintptr_t)places[i].data;

		if (r->out_desc[i].none || places[i].bytes == 0)
			continue;
		for (size_t k = 0; k < n_blocks; k++)
			if (at >= r->blocks[k].begin && at < r->blocks[k].end) {
				r->out_desc[i].down = true;
				r->out_desc[i].segment = w->segment;
				r->out_desc[i].offset = w->offset + r->blocks[k].offset + (at - r->blocks[k].begin);
			}
	}
	w->used = need;
	return true;
}

/* Hand back the inputs that the model wrote in its copies. */
static bool return_written(struct pb_runner *r, const struct pb_lane *l, const struct pb_lane_request *q,
			   struct window *w, struct pb_lane_reply *reply)
{
	for (uint32_t i = 0; r->copy_inputs && i < q->n_inputs; i++) {
		uint64_t bytes, at = align_up(w->used);
		void *orig = pb_lane_tensor_data(l, &q->inputs[i], &bytes);

		if (!orig || bytes == 0 || !r->copies[i] || memcmp(orig, r->copies[i], bytes) == 0)
			continue;
		w->used = at + bytes;
		if (w->used <= w->bytes) {
			struct pb_lane_written *wr = &r->written[reply->n_written++];

			memcpy(w->base + at, r->copies[i], bytes);
			wr->input = i;
			wr->copy = q->inputs[i];
			wr->copy.down = true;
			wr->copy.segment = w->segment;
			wr->copy.offset = w->offset + at;
		} else {
			reply->needed_bytes = align_up(w->used);
		}
	}
	return w->used <= w->bytes;
}

/* Everything that will be needed if nothing lies in the window already. */
static uint64_t total_need(struct pb_runner *r, const struct place *places, uint64_t at_least)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < r->model->n_outputs; i++)
		sum = align_up(sum + places[i].bytes);
	return sum > at_least ? sum : at_least;
}

static bool finish(struct pb_runner *r, const struct pb_lane *l, uint32_t slot, uint32_t seq,
		   const struct pb_lane_request *q, struct window *w, struct pb_lane_reply *reply)
{
	struct place small[16], *places = small;
	uint64_t all;
	bool ok = true;

	if (r->model->n_outputs > 16)
		places = calloc(r->model->n_outputs, sizeof(*places));
	for (size_t i = 0; places && ok && i < r->model->n_outputs; i++)
		ok = describe(r, i, &places[i], reply);
	if (!places)
		fail(reply, PT2BOX_MODEL_OOM, "no memory for the outputs");
	ok = ok && places;
	if (ok) {
		all = total_need(r, places, 0);
		reply->outputs = r->out_desc;
		reply->n_outputs = (uint32_t)r->model->n_outputs;
		reply->written = r->written;
		if (!place_outputs(r, l, q, w, places, reply) || !return_written(r, l, q, w, reply)) {
			uint64_t in_bytes = 0, b;

			for (uint32_t i = 0; r->copy_inputs && i < q->n_inputs; i++)
				if (pb_lane_tensor_data(l, &q->inputs[i], &b))
					in_bytes = align_up(in_bytes + b);
			all += in_bytes + ALIGN;
			if (reply->needed_bytes < all)
				reply->needed_bytes = all;
			reply->status = PT2BOX_WINDOW;
			reply->n_outputs = 0;
			reply->n_written = 0;
			r->kept = true;
			r->kept_lane = l;
			r->kept_slot = slot;
			r->kept_seq = seq;
			ok = false;
		}
	}
	if (places != small)
		free(places);
	return ok;
}

static bool open_window(const struct pb_lane *l, const struct pb_lane_request *q, struct window *w,
			struct pb_lane_reply *reply)
{
	w->segment = q->window_segment;
	w->offset = q->window_offset;
	w->bytes = q->window_bytes;
	w->used = 0;
	w->base = pb_lane_span(l, true, q->window_segment, q->window_offset, q->window_bytes);
	if (!w->base)
		fail(reply, PT2BOX_BAD_TENSOR, "the window for the outputs does not lie inside the lane");
	return w->base != NULL;
}

static void run_model(struct pb_runner *r, const struct pb_lane *l, uint32_t slot, uint32_t seq,
		      const struct pb_lane_request *q, struct window *w, struct pb_lane_reply *reply)
{
	struct pb_backend *b = r->model->backend;
	uint64_t begin;
	int32_t rc;

	memset(r->out, 0, r->model->n_outputs * sizeof(*r->out)); /* a None output is never written */
	if (!lend_inputs(r, l, q, reply))
		return;
	if (b->seed)
		b->seed(q->seeded ? q->seed : r->seed++);
	if (b->run_begin)
		b->run_begin(w->base, w->bytes);
	pb_interpose_clear_refused();
	(void)pb_ops_take_status();
	begin = pb_now_ns();
	rc = r->model->run(r->model->container, r->in, r->model->n_inputs, r->out, r->model->n_outputs, NULL,
			   r->model->proxy);
	reply->run_ns = pb_now_ns() - begin;
	if (rc != 0) {
		bool refused = pb_interpose_refused() || (b->memory_refused && b->memory_refused());

		pb_status op = pb_ops_take_status();

		reply->status = refused ? PT2BOX_MODEL_OOM : op ? op : PT2BOX_MODEL_ERROR;
		pb_model_error_text(r->model, reply->text, sizeof(reply->text));
		if (b->run_end)
			b->run_end(NULL, 0); /* what is left of the run leaves the window */
		return;
	}
	if (b->run_end)
		b->run_end(r->out, r->model->n_outputs);
	if (b->window_used)
		w->used = b->window_used();
	finish(r, l, slot, seq, q, w, reply);
}

bool pb_runner_keeps(const struct pb_runner *r, const struct pb_lane *l, uint32_t slot,
		     const struct pb_lane_request *q)
{
	return r->kept && r->kept_lane == l && r->kept_slot == slot && r->kept_seq == q->fetch && q->fetch;
}

void pb_runner_forget(struct pb_runner *r)
{
	r->kept = false;
	pb_runner_release(r);
}

void pb_runner_run(struct pb_runner *r, const struct pb_lane *l, uint32_t slot, uint32_t seq,
		   const struct pb_lane_request *q, struct pb_lane_reply *reply)
{
	struct window w;
	bool kept = pb_runner_keeps(r, l, slot, q);

	reply->status = PT2BOX_OK;
	reply->signal = 0;
	reply->needed_bytes = reply->run_ns = 0;
	reply->text[0] = '\0';
	reply->n_outputs = reply->n_written = 0;
	if (!kept)
		pb_runner_forget(r);
	if (!open_window(l, q, &w, reply))
		return;
	if (kept) {
		r->kept = false;
		finish(r, l, slot, seq, q, &w, reply);
	} else if (q->fetch && !r->keeps_nothing) {
		fail(reply, PT2BOX_NOT_FOUND, "the outputs of that run are gone");
	} else {
		run_model(r, l, slot, seq, q, &w, reply);
	}
}

void pb_runner_release(struct pb_runner *r)
{
	struct pb_backend *b = r->model->backend;

	if (r->kept)
		return;
	for (size_t i = 0; i < r->model->n_inputs; i++) {
		if (r->in[i]) /* not stolen by the run */
			b->delete_tensor(r->in[i]);
		r->in[i] = NULL;
	}
	for (size_t i = 0; i < r->model->n_outputs; i++) {
		if (!r->out[i])
			continue;
		for (size_t k = i + 1; k < r->model->n_outputs; k++)
			if (r->out[k] == r->out[i]) /* one handle may fill several slots */
				r->out[k] = NULL;
		b->delete_tensor(r->out[i]);
		r->out[i] = NULL;
	}
}
