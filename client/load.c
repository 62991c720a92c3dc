/* SPDX-License-Identifier: Apache-2.0 */
/* Packages in, models out; and the other questions to a broker that are answered by a file. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "client/internal.h"
#include "ipc/file_system.h"

#define TEXT_MAX_BYTES (64u << 20)

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
			      int *ret_constants_fd, int *ret_ops_fd, struct pt2box_error *err)
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
	if (o.isolate != PT2BOX_ISOLATE_NONE && o.isolate != PT2BOX_ISOLATE_REQUEST)
		return pb_error_set(err, PT2BOX_USAGE, "there is no isolation of kind %d", o.isolate);
	m->isolate = o.isolate == PT2BOX_ISOLATE_REQUEST;
	m->constants = o.constants_fd >= 0;
	*ret_constants_fd = o.constants_fd;
	*ret_ops_fd = o.ops_fd;
	return PT2BOX_OK;
}

/* ---- answers in files ---- */

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

static pb_status model_new(struct pt2box *c, const struct pb_msg_loaded *loaded, int manifest_fd,
			   struct pt2box_model **ret, struct pt2box_error *err)
{
	struct pt2box_model *m = pb_model_new(c, loaded);
	pb_status st;

	if (!m)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for a model");
	st = pb_manifest_read(manifest_fd, &m->manifest, err);
	if (!st)
		m->has_signature =
			m->manifest->has_signature && m->manifest->n_inputs == loaded->n_inputs;
	if (!st)
		st = pb_model_open_lane(m, err);
	if (st)
		pb_model_unref(m);
	else
		*ret = m;
	return st;
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

pb_status pb_make_local(const struct pt2box *c, int *fd, int *ret_copy, struct pt2box_error *err)
{
	struct statfs fs;
	struct stat sb;
	pb_status st;

	if (*fd < 0 || c->broker.pidfd >= 0)
		return PT2BOX_OK;
	if (fstatfs(*fd, &fs) == 0 ? !pb_file_system_may_wait(&fs) : errno != ENOSYS)
		return PT2BOX_OK;
	if (fstat(*fd, &sb) == 0 && !S_ISREG(sb.st_mode))
		return PT2BOX_OK; /* the broker refuses it */
	st = copy_to_memory(*fd, ret_copy, err);
	if (!st)
		*fd = *ret_copy;
	return st;
}

/* @name: of the broker's repository, or @fd is the package. */
static pb_status load_from(struct pt2box *c, const char *name, int fd, const struct pt2box_load_options *opt,
			   struct pt2box_model **ret, struct pt2box_error *err)
{
	PB_CLEANUP(pb_close_fd) int copy = -1;
	PB_CLEANUP(pb_close_fd) int constants_copy = -1;
	PB_CLEANUP(pb_close_fd) int ops_copy = -1;
	struct pb_msg_load m;
	struct pb_msg_constants k;
	struct pb_call call;
	int constants_fd, ops_fd, fds[2];
	size_t n = 0;
	pb_status st;

	pb_error_clear(err);
	st = pb_connection_check(c, err);
	if (!st)
		st = load_message(opt, &m, &constants_fd, &ops_fd, err);
	if (!st && name)
		st = set_text(m.name, sizeof(m.name), name, "", "the model's name", err);
	if (!st)
		st = pb_make_local(c, &fd, &copy, err);
	if (!st)
		st = pb_make_local(c, &constants_fd, &constants_copy, err);
	if (!st)
		st = pb_make_local(c, &ops_fd, &ops_copy, err);
	if (st)
		return st;
	pb_call_begin(c, &call, PB_MSG_loaded);
	m.request = k.request = call.request;
	if (!name)
		fds[n++] = fd;
	if (ops_fd >= 0)
		fds[n++] = ops_fd;
	st = pb_call_send(c, &call, PB_MSG_load, &m, fds, n, err);
	if (!st && m.constants)
		st = pb_call_send(c, &call, PB_MSG_constants, &k, &constants_fd, 1, err);
	if (!st)
		st = pb_call_await(c, &call, err);
	if (st)
		return st;
	st = model_new(c, &call.msg.loaded, call.fds.fd[0], ret, err);
	pb_fds_close(&call.fds);
	if (st)
		pb_tell_unload(c, (uint32_t)call.msg.loaded.model);
	return st;
}

enum pt2box_status pt2box_load_fd(struct pt2box *c, int fd, const struct pt2box_load_options *opt,
				  struct pt2box_model **ret, struct pt2box_error *err)
{
	return load_from(c, NULL, fd, opt, ret, err);
}

enum pt2box_status pt2box_load_named(struct pt2box *c, const char *name, const struct pt2box_load_options *opt,
				     struct pt2box_model **ret, struct pt2box_error *err)
{
	pb_error_clear(err);
	if (!name || !*name)
		return pb_error_set(err, PT2BOX_USAGE, "a name is needed");
	return load_from(c, name, -1, opt, ret, err);
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
		st = pb_make_local(c, &fd, &copy, err);
	if (st)
		return st;
	pb_call_begin(c, &call, PB_MSG_inspected);
	m.request = call.request;
	st = pb_call_finish(c, &call, PB_MSG_inspect, &m, &fd, 1, err);
	if (st)
		return st;
	st = pb_manifest_read(call.fds.fd[0], &mf, err);
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
