/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Results: written under a hidden name in .pt2box, one for each thread, and renamed when they are whole. What a killed
 * batch leaves there is overwritten by the next. Durable they become later, many at once, before the journal has them.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/cmd/batch.h"

static pb_status failed(const struct batch *b, const char *name, int e, struct pt2box_error *err)
{
	pb_error_set(err, PT2BOX_IO, "%s/%s cannot be written: %s", b->o->output, name, strerror(e));
	if (err)
		err->sys_errno = e;
	return PT2BOX_IO;
}

pb_status batch_make_folders(const struct batch *b, const char *name, struct pt2box_error *err)
{
	char path[PATH_MAX + 64];

	snprintf(path, sizeof(path), "%s", name);
	for (char *p = strchr(path, '/'); p; p = strchr(p + 1, '/')) {
		*p = '\0';
		if (mkdirat(b->out_fd, path, 0777) != 0 && errno != EEXIST)
			return failed(b, path, errno, err);
		*p = '/';
	}
	return PT2BOX_OK;
}

pb_status batch_write(const struct batch_thread *t, const char *name,
		      pb_status (*write)(int fd, const void *arg, struct pt2box_error *err), const void *arg,
		      struct pt2box_error *err)
{
	const struct batch *b = t->b;
	char temp[64];
	pb_status st;
	int fd;

	snprintf(temp, sizeof(temp), BATCH_PRIVATE "/tmp-%llu-%u", (unsigned long long)b->shard, t->number);
	fd = openat(b->out_fd, temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (fd < 0)
		return failed(b, name, errno, err);
	st = write(fd, arg, err);
	/* Network file systems say only here what went wrong. */
	if (close(fd) != 0 && !st)
		st = failed(b, name, errno, err);
	if (!st && renameat(b->out_fd, temp, b->out_fd, name) != 0) {
		st = errno == ENOENT ? batch_make_folders(b, name, err) : failed(b, name, errno, err);
		if (!st && renameat(b->out_fd, temp, b->out_fd, name) != 0)
			st = failed(b, name, errno, err);
	}
	if (st)
		unlinkat(b->out_fd, temp, 0);
	return st;
}

static pb_status write_reason(int fd, const void *arg, struct pt2box_error *err)
{
	const struct pt2box_error *why = arg;

	if (dprintf(fd, "%s: %s\n", pt2box_status_name(why->status), why->text) < 0)
		return pb_error_sys(err, "writing the reason");
	return PT2BOX_OK;
}

pb_status batch_quarantine(const struct batch_thread *t, const struct pt2box_error *why, struct pt2box_error *err)
{
	char name[PATH_MAX + 64], real[PATH_MAX];
	int n = snprintf(name, sizeof(name), BATCH_QUARANTINE "/%s", t->item.name);
	pb_status st;

	/* The input beside its reason: a link, as inputs may be large and there may be many. */
	if (t->item.path[0] && realpath(t->item.path, real)) {
		st = batch_make_folders(t->b, name, err);
		if (st)
			return st;
		if (symlinkat(real, t->b->out_fd, name) != 0 && errno != EEXIST)
			return failed(t->b, name, errno, err);
	}
	snprintf(name + n, sizeof(name) - (size_t)n, ".reason.txt");
	return batch_write(t, name, write_reason, why, err);
}
