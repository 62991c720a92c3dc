/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handles of models and of their sessions: made, asked, ended. A session is a handle with a lane of its own; what the package
 * says of itself is its model's, which therefore lives as long.
 */
#include <stdlib.h>
#include <string.h>

#include "client/internal.h"

#define LANE_FIRST_MIN (256u << 10)
#define LANE_FIRST_MAX (256u << 20)
#define LANE_FIRST_DOWN (1u << 20)

/* ---- making ---- */

struct pt2box_model *pb_model_new(struct pt2box *c, const struct pb_msg_loaded *loaded)
{
	struct pt2box_model *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->refs = 1;
	m->loaded = *loaded;
	m->c = c;
	pthread_mutex_init(&m->changing, NULL);
	atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
	return m;
}

void pb_model_unref(struct pt2box_model *m)
{
	if (!m || atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) != 1)
		return;
	if (m->of)
		pb_model_unref(m->of);
	else
		pb_manifest_free(m->manifest);
	pthread_mutex_destroy(&m->changing);
	pb_connection_unref(m->c);
	free(m);
}

/* Room for two sets of inputs as the package declares them; dynamic sizes count with what they may
 * grow to, within reason. */
static uint64_t first_up_bytes(const struct pb_manifest *m)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < m->n_inputs && m->has_signature && sum < LANE_FIRST_MAX; i++) {
		const struct pb_sig_input *in = &m->inputs[i];
		uint64_t bytes = pt2box_dtype_size(in->dtype);

		for (int32_t d = 0; d < in->ndim && bytes < LANE_FIRST_MAX; d++) {
			int64_t n = in->dims[d].hi < 64 ? in->dims[d].hi : 64;

			if (in->dims[d].lo > n)
				n = in->dims[d].lo;
			bytes *= n > LANE_FIRST_MAX ? LANE_FIRST_MAX : (uint64_t)n;
		}
		sum += bytes < LANE_FIRST_MAX ? bytes : LANE_FIRST_MAX;
	}
	sum *= 2;
	if (sum < LANE_FIRST_MIN)
		return LANE_FIRST_MIN;
	return sum < LANE_FIRST_MAX ? sum : LANE_FIRST_MAX;
}

pb_status pb_model_open_lane(struct pt2box_model *m, struct pt2box_error *err)
{
	struct pb_msg_lane_open q = {.model = m->loaded.model,
				     .session = m->session,
				     .up_bytes = first_up_bytes(m->manifest),
				     .down_bytes = LANE_FIRST_DOWN};

	return pb_lane_client_open(m->c, &q, (uint32_t)m->loaded.n_inputs,
				   (uint32_t)m->loaded.n_outputs, &m->lane, err);
}

/* ---- ending ---- */

void pb_tell_unload(struct pt2box *c, uint32_t model)
{
	struct pb_msg_unload m = {.model = model};
	struct pb_call call;

	if (pb_connection_check(c, NULL))
		return;
	pb_call_begin(c, &call, PB_MSG_done);
	m.request = call.request;
	(void)!pb_call_finish(c, &call, PB_MSG_unload, &m, NULL, 0, NULL);
}

static void tell_session_close(const struct pt2box_model *m)
{
	struct pb_msg_session_close q = {.model = m->loaded.model, .session = m->session};

	pb_tell(m->c, PB_MSG_session_close, &q);
}

void pt2box_unload(struct pt2box_model *m)
{
	if (!m)
		return;
	if (pb_connection_is_ours(m->c)) {
		atomic_store(&m->unloaded, true);
		pthread_mutex_lock(&m->lane->lock);
		m->lane->dead = true;
		pthread_mutex_unlock(&m->lane->lock);
		if (!m->session)
			pb_tell_unload(m->c, (uint32_t)m->loaded.model);
		else if (!atomic_load(&m->of->unloaded))
			tell_session_close(m);
		pb_lane_client_unref(m->lane);
	}
	pb_model_unref(m);
}

/* ---- sessions ---- */

static pb_status session_new(struct pt2box_model *of, uint32_t session, struct pt2box_model **ret,
			     struct pt2box_error *err)
{
	struct pt2box_model *m = pb_model_new(of->c, &of->loaded);
	pb_status st;

	if (!m)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for a session");
	atomic_fetch_add_explicit(&of->refs, 1, memory_order_relaxed);
	m->of = of;
	m->session = session;
	m->manifest = of->manifest;
	m->has_signature = of->has_signature;
	st = pb_model_open_lane(m, err);
	if (st) {
		tell_session_close(m);
		pb_model_unref(m);
	} else {
		*ret = m;
	}
	return st;
}

enum pt2box_status pt2box_session_open(struct pt2box_model *m, struct pt2box_model **ret,
				       struct pt2box_error *err)
{
	struct pb_msg_session_open q = {.model = m->loaded.model};
	struct pb_call call;
	pb_status st;

	pb_error_clear(err);
	st = pb_model_check(m, err);
	if (!st && m->session)
		st = pb_error_set(err, PT2BOX_USAGE, "a session is opened on a model, not on a session");
	if (st)
		return st;
	pb_call_begin(m->c, &call, PB_MSG_session);
	q.request = call.request;
	st = pb_call_finish(m->c, &call, PB_MSG_session_open, &q, NULL, 0, err);
	if (!st && !call.msg.session.session)
		st = pb_error_set(err, PT2BOX_PROTOCOL, "the broker opened a session without a number");
	return st ? st : session_new(m, (uint32_t)call.msg.session.session, ret, err);
}

/* ---- asking ---- */

pb_status pb_model_check(const struct pt2box_model *m, struct pt2box_error *err)
{
	pb_status st = pb_connection_check(m->c, err);

	if (!st && m->of && atomic_load_explicit(&m->of->unloaded, memory_order_relaxed))
		st = pb_error_set(err, PT2BOX_USAGE, "the session's model is unloaded");
	return st;
}

size_t pt2box_model_n_inputs(const struct pt2box_model *m)
{
	return m->lane->n_in;
}

size_t pt2box_model_n_outputs(const struct pt2box_model *m)
{
	return m->lane->n_out;
}

int32_t pt2box_model_input_dtype(const struct pt2box_model *m, size_t i)
{
	return m->has_signature && i < m->lane->n_in ? m->manifest->inputs[i].dtype : -1;
}

void pt2box_model_call_spec(const struct pt2box_model *m, const char **ret_in, const char **ret_out)
{
	*ret_in = m->manifest->in_spec;
	*ret_out = m->manifest->out_spec;
}

int pt2box_model_is_stateful(const struct pt2box_model *m)
{
	return m->loaded.stateful != 0;
}

int pt2box_model_constant(const struct pt2box_model *m, size_t i, struct pt2box_constant_info *ret)
{
	const struct pb_constant *k;

	if (i >= m->manifest->n_constants)
		return 0;
	k = &m->manifest->constants[i];
	*ret = (struct pt2box_constant_info){.name = k->name,
					     .fqn = k->fqn,
					     .dtype = k->dtype,
					     .ndim = k->ndim,
					     .folded = k->folded,
					     .type = (int32_t)k->type,
					     .bytes = k->data_size};
	memcpy(ret->sizes, k->sizes, sizeof(ret->sizes));
	memcpy(ret->strides, k->strides, sizeof(ret->strides));
	return 1;
}
