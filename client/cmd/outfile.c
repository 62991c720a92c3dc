/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See outfile.h. There is no fsync: whole means for other processes and for however this one ends, not for a power cut,
 * and a flush of the disk would cost more than most runs.
 */
#include "client/cmd/outfile.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const int deadly[] = {SIGINT, SIGTERM, SIGHUP};

/* What a signal has to remove. */
static const char *volatile to_remove;

static void remove_and_die(int sig)
{
	if (to_remove)
		unlink(to_remove);
	/* SA_RESETHAND: it kills this time. */
	raise(sig);
}

static void catch_signals(void)
{
	struct sigaction sa = {.sa_handler = remove_and_die, .sa_flags = SA_RESETHAND | SA_NODEFER}, old;

	for (size_t i = 0; i < sizeof(deadly) / sizeof(deadly[0]); i++)
		if (sigaction(deadly[i], NULL, &old) == 0 && old.sa_handler == SIG_DFL)
			sigaction(deadly[i], &sa, NULL);
}

/* "dir/.name.XXXXXX", and the length of "dir" ("." if there is none). */
static char *temp_name(const char *path, char **ret_dir)
{
	const char *slash = strrchr(path, '/');
	int n = slash ? (int)(slash - path) : 0;
	char *temp;

	if (asprintf(ret_dir, "%.*s%s", n, path, slash ? (n ? "" : "/") : ".") < 0)
		return NULL;
	if (asprintf(&temp, "%.*s%s.%.200s.XXXXXX", n, path, slash ? "/" : "", slash ? slash + 1 : path) < 0) {
		free(*ret_dir);
		return NULL;
	}
	return temp;
}

static pb_status open_named(struct cmd_outfile *f, struct pt2box_error *err)
{
	mode_t mask = umask(0);

	umask(mask);
	f->fd = mkostemp(f->temp, O_CLOEXEC);
	if (f->fd < 0)
		return pb_error_set(err, PT2BOX_IO, "%s cannot be written: %s", f->path, strerror(errno));
	f->named = 1;
	to_remove = f->temp;
	catch_signals();
	(void)!fchmod(f->fd, 0666 & ~mask);
	return PT2BOX_OK;
}

pb_status cmd_outfile_open(const char *path, struct cmd_outfile *ret, struct pt2box_error *err)
{
	struct stat sb;
	char *dir;

	*ret = (struct cmd_outfile){.path = path, .fd = -1};
	if (stat(path, &sb) == 0 && !S_ISREG(sb.st_mode))
		return pb_error_set(err, PT2BOX_IO, "%s is there and is not a regular file", path);
	ret->temp = temp_name(path, &dir);
	if (!ret->temp)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "out of memory");
	/* Naming it later goes through /proc. */
	if (access("/proc/self/fd", X_OK) == 0)
		ret->fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0666);
	free(dir);
	return ret->fd >= 0 ? PT2BOX_OK : open_named(ret, err);
}

/* Link the unnamed file to a free name like f->temp. */
static int link_temp(struct cmd_outfile *f, const char *from)
{
	char *x = f->temp + strlen(f->temp) - 6;

	for (unsigned int i = 0; i < 1000; i++) {
		snprintf(x, 7, "%06u", ((unsigned int)getpid() + i) % 1000000);
		if (linkat(AT_FDCWD, from, AT_FDCWD, f->temp, AT_SYMLINK_FOLLOW) == 0)
			return 0;
		if (errno != EEXIST)
			return -1;
	}
	return -1;
}

static int give_name(struct cmd_outfile *f)
{
	char from[40];

	if (f->named)
		return rename(f->temp, f->path);
	snprintf(from, sizeof(from), "/proc/self/fd/%d", f->fd);
	if (linkat(AT_FDCWD, from, AT_FDCWD, f->path, AT_SYMLINK_FOLLOW) == 0)
		return 0;
	/* There is a file already, and only rename replaces one. */
	if (errno != EEXIST || link_temp(f, from) != 0)
		return -1;
	if (rename(f->temp, f->path) == 0)
		return 0;
	unlink(f->temp);
	return -1;
}

pb_status cmd_outfile_commit(struct cmd_outfile *f, struct pt2box_error *err)
{
	sigset_t set, before;
	int rc, e;

	/* For the moment in which it has a name of its own. */
	sigemptyset(&set);
	for (size_t i = 0; i < sizeof(deadly) / sizeof(deadly[0]); i++)
		sigaddset(&set, deadly[i]);
	sigprocmask(SIG_BLOCK, &set, &before);
	rc = give_name(f);
	e = errno;
	if (rc == 0) {
		to_remove = NULL;
		f->named = 0;
	}
	sigprocmask(SIG_SETMASK, &before, NULL);
	if (rc != 0)
		return pb_error_set(err, PT2BOX_IO, "%s cannot be written: %s", f->path, strerror(e));
	return PT2BOX_OK;
}

void cmd_outfile_deinit(struct cmd_outfile *f)
{
	if (!f->path)
		return;
	to_remove = NULL;
	if (f->named)
		unlink(f->temp);
	if (f->fd >= 0)
		close(f->fd);
	free(f->temp);
	*f = (struct cmd_outfile){.fd = -1};
}
