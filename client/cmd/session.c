/* SPDX-License-Identifier: Apache-2.0 */
/* Connection and model of a verb, from its options. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/cmd/cmd.h"

pb_status cmd_open_package(const char *path, int *ret_fd, struct pt2box_error *err)
{
	/* Not blocking: a FIFO is refused, not waited for. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat sb;

	if (fd < 0)
		return pb_error_set(err, PT2BOX_IO, "%s cannot be opened: %s", path, strerror(errno));
	if (fstat(fd, &sb) != 0 || !S_ISREG(sb.st_mode)) {
		close(fd);
		return pb_error_set(err, PT2BOX_IO, "%s is not a file: a package is one .pt2 archive", path);
	}
	*ret_fd = fd;
	return PT2BOX_OK;
}

static pb_status load(const struct cmd_options *o, int fd, int constants, int ops, struct pt2box *c, struct pt2box_model **ret,
		      struct pt2box_error *err)
{
	struct pt2box_load_options opt = PT2BOX_LOAD_OPTIONS_INIT;
	pb_status st;

	opt.model_name = o->name;
	opt.backend = o->backend;
	opt.profile = o->profile;
	opt.runners = o->runners;
	opt.threads = o->threads;
	opt.single_threaded = o->single_threaded;
	opt.device_index = o->device;
	opt.load_deadline_ms = o->load_deadline_ms;
	opt.run_deadline_ms = o->deadline_ms;
	opt.explain = o->explain;
	opt.memory_bytes = o->memory_bytes;
	opt.constants_fd = constants;
	opt.ops_fd = ops;
	opt.isolate = o->isolate && strcmp(o->isolate, "request") == 0 ? PT2BOX_ISOLATE_REQUEST : PT2BOX_ISOLATE_NONE;
	cmd_progress_start("loading");
	st = fd >= 0 ? pt2box_load_fd(c, fd, &opt, ret, err) :
		       pt2box_load_named(c, o->package + strlen(CMD_REPO), &opt, ret, err);
	cmd_progress_stop();
	return st;
}

pb_status cmd_load(const struct cmd_options *o, struct pt2box **ret_c, struct pt2box_model **ret_m,
		   struct pt2box_error *err)
{
	int fd = -1, constants = -1, ops = -1;
	pb_status st = strncmp(o->package, CMD_REPO, strlen(CMD_REPO)) == 0 ? PT2BOX_OK :
									      cmd_open_package(o->package, &fd, err);

	if (!st && o->constants)
		st = cmd_open_package(o->constants, &constants, err);
	if (!st && o->ops)
		st = cmd_open_package(o->ops, &ops, err);
	if (!st)
		st = pt2box_open(o->socket, ret_c, err);
	if (!st)
		st = load(o, fd, constants, ops, *ret_c, ret_m, err);
	if (fd >= 0)
		close(fd);
	if (constants >= 0)
		close(constants);
	if (ops >= 0)
		close(ops);
	return st;
}
