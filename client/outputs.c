/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a reply to tensors. The worker is not believed: an output lies in an input of this run or in
 * this run's window, else the reply is refused. Outputs that overlap share one storage. Small ones
 * are copied out of the window, which is free again at once; large ones keep their part of it, and
 * only that.
 */
#include <stdlib.h>
#include <string.h>

#include "client/internal.h"
#include "ipc/checked.h"

static pb_status refuse(struct pt2box_error *err, uint32_t i, const char *what)
{
	return pb_error_set(err, PT2BOX_MODEL_PROTOCOL, "the model's worker sent output %u %s", i,
			    what);
}

static bool inside(const struct pb_block *b, uint32_t segment, uint64_t offset, uint64_t bytes)
{
	return b && b->seg->id == segment && offset >= b->offset &&
	       pb_span_fits(offset - b->offset, bytes, b->bytes);
}

/* The input that holds an output, NULL: none does. */
static struct pb_block *find_input(const struct pb_lane_client *l, const struct pb_slot *s,
				   const struct pb_lane_tensor *o)
{
	uint64_t bytes;

	if (!pb_tensor_extent(o->ndim, o->sizes, o->strides, pt2box_dtype_size(o->dtype), &bytes))
		return NULL;
	for (uint32_t i = 0; i < l->n_in; i++)
		if (inside(s->in_block[i], o->segment, o->offset, bytes))
			return s->in_block[i];
	return NULL;
}

/*
 * Say of which input @t is a view. Only of those that lie in the lane as they do at their owner's,
 * without holes: there the same offset leads to nothing that was not given to the model.
 */
static void note_input(const struct pb_lane_client *l, const struct pb_slot *s,
		       const struct pb_lane_tensor *o, uint64_t bytes, struct pt2box_tensor *t)
{
	for (uint32_t i = 0; i < l->n_in; i++) {
		const struct pb_lane_tensor *in = &s->in[i];

		if (!s->in_block[i] || in->segment != o->segment || o->offset < in->offset ||
		    !pb_span_fits(o->offset - in->offset, bytes, s->in_same[i]))
			continue;
		t->of_input = i + 1;
		t->input_offset = o->offset - in->offset;
		return;
	}
}

/* A storage in an input's memory; its block is counted under the lock, later. */
static pb_status alias_input(struct pb_lane_client *l, struct pb_slot *s,
			     const struct pb_lane_tensor *o, uint64_t bytes, uint32_t i,
			     struct pt2box_tensor *t, struct pt2box_error *err)
{
	const struct pb_block *in = find_input(l, s, o);

	if (!in)
		return refuse(err, i, "outside the inputs of its run");
	t->storage = pb_storage_new_block(l, false, NULL);
	if (!t->storage)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for output %u", i);
	t->info.data = in->seg->base + o->offset;
	note_input(l, s, o, bytes, t);
	return PT2BOX_OK;
}

/* Checks one output and makes its tensor; one in the window is noted in s->places. */
static pb_status make_one(struct pb_lane_client *l, struct pb_slot *s,
			  const struct pb_lane_tensor *o, uint32_t i, uint32_t *n_places,
			  struct pt2box_tensor **ret, struct pt2box_error *err)
{
	uint64_t bytes;
	pb_status st;

	if (o->none)
		return PT2BOX_OK;
	st = pb_tensor_new(o->dtype, o->ndim, o->sizes, o->strides, ret, &bytes, err);
	if (st == PT2BOX_BAD_TENSOR)
		return refuse(err, i, "with a shape that cannot be");
	if (st)
		return st;
	(*ret)->info.data = pb_tensor_nothing;
	if (bytes == 0)
		return PT2BOX_OK;
	if (o->offset % pt2box_dtype_size(o->dtype))
		return refuse(err, i, "at an odd place");
	if (!o->down)
		return alias_input(l, s, o, bytes, i, *ret, err);
	if (!inside(s->window, o->segment, o->offset, bytes))
		return refuse(err, i, "outside its window");
	s->places[(*n_places)++] = (struct pb_place){o->offset, o->offset + bytes, i};
	return PT2BOX_OK;
}

static int by_begin(const void *a, const void *b)
{
	const struct pb_place *x = a, *y = b;

	return (x->begin > y->begin) - (x->begin < y->begin);
}

static uint64_t down_to_line(uint64_t v)
{
	return v & ~(uint64_t)(PB_ARENA_ALIGN - 1);
}

static uint64_t up_to_line(uint64_t v)
{
	return down_to_line(v + PB_ARENA_ALIGN - 1);
}

/*
 * One group of outputs that share memory: places[0] to places[n - 1], @end the last byte of any of
 * them. Small: copied. Large: a storage whose block comes later.
 */
static pb_status store_group(struct pb_lane_client *l, const struct pb_slot *s,
			     const struct pb_place *places, uint32_t n, uint64_t end,
			     struct pt2box_tensor **out, struct pt2box_error *err)
{
	uint64_t begin = places[0].begin, bytes = end - begin;
	uint8_t *from = s->window->seg->base + begin, *data = from;
	bool small = bytes <= PB_SMALL_OUTPUT;
	struct pb_storage *st =
		small ? pb_storage_new_heap(bytes, &data) : pb_storage_new_block(l, true, NULL);

	if (!st)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for an output of %llu bytes",
				    (unsigned long long)bytes);
	if (small)
		memcpy(data, from, bytes);
	st->refs = n;
	for (uint32_t i = 0; i < n; i++) {
		struct pt2box_tensor *t = out[places[i].output];

		t->storage = st;
		t->info.data = data + (places[i].begin - begin);
		t->info.readonly = !small;
	}
	return PT2BOX_OK;
}

/* Sort places, find groups that overlap (or share a line of memory), store each. *ret_large: groups
 * that stay. */
static pb_status store_window(struct pb_lane_client *l, struct pb_slot *s, uint32_t n,
			      struct pt2box_tensor **out, uint32_t *ret_large,
			      struct pt2box_error *err)
{
	struct pb_place *p = s->places;
	uint32_t first = 0;
	pb_status st = PT2BOX_OK;

	*ret_large = 0;
	if (n > 1)
		qsort(p, n, sizeof(*p), by_begin);
	while (first < n && !st) {
		uint64_t end = p[first].end;
		uint32_t k = first + 1;

		while (k < n && down_to_line(p[k].begin) < up_to_line(end)) {
			end = p[k].end > end ? p[k].end : end;
			k++;
		}
		st = store_group(l, s, p + first, k - first, end, out, err);
		for (uint32_t i = first; i < k; i++)
			p[i].end = end; /* of the group, for the cut */
		*ret_large += end - p[first].begin > PB_SMALL_OUTPUT;
		first = k;
	}
	return st;
}

/* With the lock held. The window is cut into what outputs keep and what is left over until the slot
 * is put back. */
static void cut_window(struct pb_lane_client *l, struct pb_slot *s, uint32_t n,
		       struct pt2box_tensor **out)
{
	struct pb_block *rest = s->window;

	for (uint32_t i = 0; i < n && rest; i++) {
		struct pb_storage *st = out[s->places[i].output]->storage;
		uint64_t begin = down_to_line(s->places[i].begin),
			 end = up_to_line(s->places[i].end);
		struct pb_block *kept = rest;

		if (!st->lane || st->block)
			continue; /* copied, or a later one of its group */
		if (begin > rest->offset) {
			kept = pb_arena_split(&l->down, rest, begin - rest->offset);
			rest->bin_next = s->leftover;
			s->leftover = rest;
		}
		rest = end < kept->offset + kept->bytes
			       ? pb_arena_split(&l->down, kept, end - kept->offset)
			       : NULL;
		st->block = kept;
	}
	if (rest) {
		rest->bin_next = s->leftover;
		s->leftover = rest;
	}
	s->window = NULL;
}

/* Give every storage its block. Fails before anything is given. */
static pb_status settle(struct pb_lane_client *l, struct pb_slot *s,
			const struct pb_lane_reply *reply, uint32_t n_places, uint32_t large,
			bool aliases, struct pt2box_tensor **out, struct pt2box_error *err)
{
	if (!large && !aliases)
		return PT2BOX_OK;
	pthread_mutex_lock(&l->lock);
	if (!pb_arena_reserve(&l->down, 2 * large)) {
		pthread_mutex_unlock(&l->lock);
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for %u outputs", large);
	}
	for (uint32_t i = 0; i < reply->n_outputs; i++) {
		struct pb_storage *st = out[i] ? out[i]->storage : NULL;

		if (!st || !st->lane || st->down)
			continue;
		st->block = find_input(l, s, &reply->outputs[i]);
		st->block->refs++;
	}
	if (large)
		cut_window(l, s, n_places, out);
	pthread_mutex_unlock(&l->lock);
	return PT2BOX_OK;
}

/* ---- inputs that the model wrote ---- */

static pb_status check_written(const struct pb_lane_client *l, const struct pb_slot *s,
			       const struct pb_lane_reply *reply, struct pt2box_error *err)
{
	for (uint32_t k = 0; k < reply->n_written; k++) {
		const struct pb_lane_tensor *c = &reply->written[k].copy, *sent;
		uint32_t i = reply->written[k].input;
		size_t dims = (size_t)c->ndim * sizeof(c->sizes[0]);
		uint64_t bytes;

		if (i >= l->n_in)
			return pb_error_set(err, PT2BOX_MODEL_PROTOCOL,
					    "the model's worker wrote an input that is not");
		sent = &s->in[i];
		if (!c->down || c->dtype != sent->dtype || c->ndim != sent->ndim ||
		    memcmp(c->sizes, sent->sizes, dims) != 0 ||
		    memcmp(c->strides, sent->strides, dims) != 0 ||
		    !pb_tensor_extent(c->ndim, c->sizes, c->strides, pt2box_dtype_size(c->dtype),
				      &bytes) ||
		    !inside(s->window, c->segment, c->offset, bytes))
			return pb_error_set(
				err, PT2BOX_MODEL_PROTOCOL,
				"the model's worker wrote input %u in an impossible way", i);
	}
	return PT2BOX_OK;
}

/* What the caller's tensor holds is not what the model made of it. */
static void forget_input(struct pt2box_tensor *const *out, uint32_t n_out, uint32_t input)
{
	for (uint32_t i = 0; i < n_out; i++)
		if (out[i] && out[i]->of_input == input + 1)
			out[i]->of_input = 0;
}

static void copy_written(const struct pb_lane_tensor *c, const uint8_t *base, void *dst, const int64_t *strides)
{
	pb_copy_strided(c->ndim, c->sizes, pt2box_dtype_size(c->dtype), dst, strides, base + c->offset,
			c->strides);
}

/*
 * To the caller's tensor, and to what lies of it in the lane, where outputs may be views of it. @base: the
 * segment of the window.
 */
static void write_back(const struct pb_lane_client *l, const struct pb_slot *s,
		       const struct pb_lane_reply *reply, const uint8_t *base,
		       struct pt2box_tensor *const *in, struct pt2box_tensor *const *out)
{
	for (uint32_t k = 0; k < reply->n_written; k++) {
		const struct pb_lane_tensor *c = &reply->written[k].copy;
		uint32_t i = reply->written[k].input;
		const struct pt2box_tensor_info *f = in ? &in[i]->info : NULL;

		if (f && !f->readonly)
			copy_written(c, base, f->data, f->strides);
		else
			forget_input(out, l->n_out, i);
		if (s->in_block[i] && !s->in_lent[i])
			copy_written(c, base, s->in_block[i]->seg->base + s->in[i].offset, s->in[i].strides);
	}
}

pb_status pb_outputs_make(struct pb_lane_client *l, struct pb_slot *s,
			  const struct pb_lane_reply *reply, struct pt2box_tensor *const *in,
			  struct pt2box_tensor **ret_out, struct pt2box_error *err)
{
	const uint8_t *base = s->window->seg->base;
	uint32_t n_places = 0, large = 0;
	bool aliases = false;
	pb_status st = PT2BOX_OK;

	for (uint32_t i = 0; i < l->n_out; i++)
		ret_out[i] = NULL;
	if (reply->n_outputs != l->n_out)
		return pb_error_set(err, PT2BOX_MODEL_PROTOCOL,
				    "the model's worker sent %u outputs instead of %u",
				    reply->n_outputs, l->n_out);
	for (uint32_t i = 0; i < l->n_out && !st; i++) {
		st = make_one(l, s, &reply->outputs[i], i, &n_places, &ret_out[i], err);
		aliases |= !st && ret_out[i] && ret_out[i]->storage;
	}
	if (!st)
		st = check_written(l, s, reply, err);
	if (!st)
		st = store_window(l, s, n_places, ret_out, &large, err);
	if (!st)
		st = settle(l, s, reply, n_places, large, aliases, ret_out, err);
	if (!st) {
		write_back(l, s, reply, base, in, ret_out);
		return PT2BOX_OK;
	}
	for (uint32_t i = 0; i < l->n_out; i++) {
		pt2box_tensor_free(ret_out[i]);
		ret_out[i] = NULL;
	}
	return st;
}
