/* SPDX-License-Identifier: Apache-2.0 */
/* Packages in, models out; and the other questions to a broker that are answered by a file. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "client/internal.h"

#define FUSE_MAGIC 0x65735546 /* linux/magic.h: FUSE_SUPER_MAGIC */
#define TEXT_MAX_BYTES (64u << 20)
#define LANE_FIRST_MIN (256u << 10)
#define LANE_FIRST_MAX (256u << 20)
#define LANE_FIRST_DOWN (1u << 20)

/* ---- options ---- */

static pb_status set_text(char *dst, size_t cap, const char *value, const char *fallback,
			  const char *what, struct pt2box_error *err)
{
	const char *v = value ? value : fallback;

	if (strlen(v) >= cap)
		return pb_error_set(err, PT2BOX_USAGE, "%s is longer than %zu bytes", what,
				    cap - 1);
	memcpy(dst, v, strlen(v) + 1);
	return PT2BOX_OK;
}

static pb_status load_message(const struct pt2box_load_options *given, struct pb_msg_load *m,
			      int *ret_constants_fd, struct pt2box_error *err)
{
	struct pt2box_load_options o = PT2BOX_LOAD_OPTIONS_INIT;
	pb_status st;

	if (given)
		memcpy(&o, given, given->struct_size < sizeof(o) ? given->struct_size : sizeof(o));
	memset(m, 0, sizeof(*m));
	st = set_text(m->model, sizeof(m->model), o.model_name, "model", "the model's name", err);
	if (!st)
		st = set_text(m->backend, sizeof(m->backend), o.backend, "auto",
			      "the backend's name", err);
	if (!st)
		st = set_text(m->profile, sizeof(m->profile), o.profile, "default",
			      "the profile's name", err);
	if (st)
		return st;
	if (o.runners < 1 || o.runners > 64)
		return pb_error_set(err, PT2BOX_USAGE, "runners must be 1 to 64, not %u",
				    o.runners);
	if (o.threads > 256)
		return pb_error_set(err, PT2BOX_USAGE, "threads must be 0 to 256, not %u",
				    o.threads);
	if (o.single_threaded && (o.runners != 1 || o.threads > 1))
		return pb_error_set(err, PT2BOX_USAGE,
				    "single_threaded needs one runner of one thread");
	if (o.device_index < -1 || o.device_index > 1024)
		return pb_error_set(err, PT2BOX_USAGE, "there is no device %d", o.device_index);
	if (o.load_deadline_ms < 0 || o.load_deadline_ms > 86400000 || o.run_deadline_ms < -1 ||
	    o.run_deadline_ms > 86400000)
		return pb_error_set(err, PT2BOX_USAGE,
				    "a deadline is at most a day (86400000 ms), and not negative");
	if (o.memory_bytes > INT64_MAX)
		return pb_error_set(err, PT2BOX_USAGE, "memory_bytes is too large");
	m->runners = o.runners;
	m->threads = o.threads;
	m->device = o.device_index;
	m->load_deadline_ms = o.load_deadline_ms;
	m->run_deadline_ms = o.run_deadline_ms;
	m->memory_bytes = o.memory_bytes;
	m->explain = o.explain != 0;
	m->constants = o.constants_fd >= 0;
	*ret_constants_fd = o.constants_fd;
	return PT2BOX_OK;
}

/* ---- answers in files ---- */

static pb_status read_manifest(int fd, struct pb_manifest **ret, struct pt2box_error *err)
{
	uint8_t *data;
	size_t bytes;
	pb_status st = pb_fd_slurp(fd, PB_MANIFEST_MAX_BYTES, &data, &bytes, err);

	if (st)
		return st;
	st = pb_manifest_decode(data, bytes, ret, err);
	free(data);
	return st;
}

static pb_status ask_text(struct pt2box *c, enum pb_msg_id id, char **ret, struct pt2box_error *err)
{
	struct pb_call call;
	uint8_t *data;
	size_t bytes;
	pb_status st;

	pb_error_clear(err);
	st = pb_connection_check(c, err);
	if (st)
		return st;
	pb_call_begin(c, &call, PB_MSG_text);
	if (id == PB_MSG_doctor)
		st = pb_call_finish(c, &call, id, &(struct pb_msg_doctor){.request = call.request},
				    NULL, 0, err);
	else
		st = pb_call_finish(c, &call, id, &(struct pb_msg_ps){.request = call.request},
				    NULL, 0, err);
	if (st)
		return st;
	st = pb_fd_slurp(call.fds.fd[0], TEXT_MAX_BYTES, &data, &bytes, err);
	pb_fds_close(&call.fds);
	if (!st)
		*ret = (char *)data;
	return st;
}

enum pt2box_status pt2box_doctor(struct pt2box *c, char **ret_json, struct pt2box_error *err)
{
	return ask_text(c, PB_MSG_doctor, ret_json, err);
}

enum pt2box_status pt2box_ps(struct pt2box *c, char **ret_json, struct pt2box_error *err)
{
	return ask_text(c, PB_MSG_ps, ret_json, err);
}

void pt2box_free_text(char *text)
{
	free(text);
}

/* ---- load ---- */

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

static void tell_unload(struct pt2box *c, uint32_t model)
{
	struct pb_msg_unload m = {.model = model};
	struct pb_call call;

	if (pb_connection_check(c, NULL))
		return;
	pb_call_begin(c, &call, PB_MSG_done);
	m.request = call.request;
	(void)!pb_call_finish(c, &call, PB_MSG_unload, &m, NULL, 0, NULL);
}

static pb_status model_new(struct pt2box *c, const struct pb_msg_loaded *loaded, int manifest_fd,
			   struct pt2box_model **ret, struct pt2box_error *err)
{
	struct pt2box_model *m = calloc(1, sizeof(*m));
	pb_status st;

	if (!m)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for a model");
	m->loaded = *loaded;
	st = read_manifest(manifest_fd, &m->manifest, err);
	if (!st) {
		m->has_signature =
			m->manifest->has_signature && m->manifest->n_inputs == loaded->n_inputs;
		st = pb_lane_client_open(c, (uint32_t)loaded->model, (uint32_t)loaded->n_inputs,
					 (uint32_t)loaded->n_outputs, first_up_bytes(m->manifest),
					 LANE_FIRST_DOWN, &m->lane, err);
	}
	if (st) {
		pb_manifest_free(m->manifest);
		free(m);
		return st;
	}
	m->c = c;
	atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
	*ret = m;
	return PT2BOX_OK;
}

/* A file, into a memfd. */
static pb_status copy_to_memory(int fd, int *ret, struct pt2box_error *err)
{
	PB_CLEANUP(pb_close_fd) int memory = -1;
	static const size_t step = 1u << 20;
	char *buf = malloc(step);
	pb_status st = buf ? pb_memfd_unsealed("pt2box-package", &memory, err)
			   : pb_error_set(err, PT2BOX_NO_MEMORY, "no memory to copy a file");

	for (off_t at = 0; !st;) {
		ssize_t n = pread(fd, buf, step, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 || (n > 0 && write(memory, buf, (size_t)n) != n))
			st = pb_error_sys(err, "cannot copy the file");
		if (n <= 0)
			break;
		at += n;
	}
	free(buf);
	if (!st)
		*ret = pb_take_fd(&memory);
	return st;
}

/*
 * A broker that serves many takes no file that a program serves (FUSE), for which it might have to
 * wait: such a one is copied here. *ret_copy is the copy, else -1.
 */
static pb_status make_local(const struct pt2box *c, int *fd, int *ret_copy, struct pt2box_error *err)
{
	struct statfs fs;
	pb_status st;

	if (*fd < 0 || c->broker.pidfd >= 0)
		return PT2BOX_OK;
	if (fstatfs(*fd, &fs) == 0 ? fs.f_type != FUSE_MAGIC : errno != ENOSYS)
		return PT2BOX_OK;
	st = copy_to_memory(*fd, ret_copy, err);
	if (!st)
		*fd = *ret_copy;
	return st;
}

enum pt2box_status pt2box_load_fd(struct pt2box *c, int fd, const struct pt2box_load_options *opt,
				  struct pt2box_model **ret, struct pt2box_error *err)
{
	PB_CLEANUP(pb_close_fd) int copy = -1;
	PB_CLEANUP(pb_close_fd) int constants_copy = -1;
	struct pb_msg_load m;
	struct pb_msg_constants k;
	struct pb_call call;
	int constants_fd;
	pb_status st;

	pb_error_clear(err);
	st = pb_connection_check(c, err);
	if (!st)
		st = load_message(opt, &m, &constants_fd, err);
	if (!st)
		st = make_local(c, &fd, &copy, err);
	if (!st)
		st = make_local(c, &constants_fd, &constants_copy, err);
	if (st)
		return st;
	pb_call_begin(c, &call, PB_MSG_loaded);
	m.request = k.request = call.request;
	st = pb_call_send(c, &call, PB_MSG_load, &m, &fd, 1, err);
	if (!st && m.constants)
		st = pb_call_send(c, &call, PB_MSG_constants, &k, &constants_fd, 1, err);
	if (!st)
		st = pb_call_await(c, &call, err);
	if (st)
		return st;
	st = model_new(c, &call.msg.loaded, call.fds.fd[0], ret, err);
	pb_fds_close(&call.fds);
	if (st)
		tell_unload(c, (uint32_t)call.msg.loaded.model);
	return st;
}

enum pt2box_status pt2box_load_path(struct pt2box *c, const char *path,
				    const struct pt2box_load_options *opt,
				    struct pt2box_model **ret, struct pt2box_error *err)
{
	/* Non-blocking: a path may name a pipe that nobody writes. */
	PB_CLEANUP(pb_close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	pb_error_clear(err);
	if (fd < 0) {
		pb_error_sys(err, "%s", path);
		if (err)
			err->status = PT2BOX_IO;
		return PT2BOX_IO;
	}
	return pt2box_load_fd(c, fd, opt, ret, err);
}

enum pt2box_status pt2box_load_memory(struct pt2box *c, const void *data, size_t size_bytes,
				      const struct pt2box_load_options *opt,
				      struct pt2box_model **ret, struct pt2box_error *err)
{
	PB_CLEANUP(pb_close_fd) int fd = -1;
	pb_status st;

	pb_error_clear(err);
	st = pb_memfd_from("pt2box-package", data, size_bytes, &fd, err);
	if (st)
		return st;
	return pt2box_load_fd(c, fd, opt, ret, err);
}

void pt2box_unload(struct pt2box_model *m)
{
	bool ours;

	if (!m)
		return;
	ours = pb_connection_is_ours(m->c);
	if (ours) {
		pthread_mutex_lock(&m->lane->lock);
		m->lane->dead = true;
		pthread_mutex_unlock(&m->lane->lock);
		tell_unload(m->c, (uint32_t)m->loaded.model);
		pb_lane_client_unref(m->lane);
	}
	pb_manifest_free(m->manifest);
	pb_connection_unref(m->c);
	free(m);
}

/* ---- what a package is ---- */

static pb_status inspect(struct pt2box *c, int fd, const char *model_name, bool brief,
			 char **ret_json, struct pt2box_error *err)
{
	PB_CLEANUP(pb_close_fd) int copy = -1;
	struct pb_msg_inspect m = {.brief = brief};
	struct pb_manifest *mf;
	struct pb_call call;
	pb_status st;

	pb_error_clear(err);
	st = pb_connection_check(c, err);
	if (!st)
		st = set_text(m.model, sizeof(m.model), model_name, "model", "the model's name",
			      err);
	if (!st)
		st = make_local(c, &fd, &copy, err);
	if (st)
		return st;
	pb_call_begin(c, &call, PB_MSG_inspected);
	m.request = call.request;
	st = pb_call_finish(c, &call, PB_MSG_inspect, &m, &fd, 1, err);
	if (st)
		return st;
	st = read_manifest(call.fds.fd[0], &mf, err);
	pb_fds_close(&call.fds);
	if (st)
		return st;
	if (brief)
		st = pb_describe_brief(mf, ret_json, err);
	else
		st = pb_describe(mf, NULL, ret_json, err);
	pb_manifest_free(mf);
	return st;
}

enum pt2box_status pt2box_inspect_fd(struct pt2box *c, int fd, const char *model_name,
				     char **ret_json, struct pt2box_error *err)
{
	return inspect(c, fd, model_name, false, ret_json, err);
}

enum pt2box_status pt2box_inspect_metadata_fd(struct pt2box *c, int fd, const char *model_name,
					      char **ret_json, struct pt2box_error *err)
{
	return inspect(c, fd, model_name, true, ret_json, err);
}

enum pt2box_status pt2box_model_describe(struct pt2box_model *m, char **ret_json,
					 struct pt2box_error *err)
{
	pb_error_clear(err);
	return pb_describe(m->manifest, &m->loaded, ret_json, err);
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
