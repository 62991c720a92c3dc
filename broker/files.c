/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which file system a client's descriptor is on, by the kernel's own tables: fstat(2) and fstatfs(2) of a file on FUSE may be
 * answered by a program that never does.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "broker/broker.h"

/* The number of the mount, as in mountinfo; -1 if it cannot be had. */
static int mount_of(int fd)
{
	char path[64], line[256];
	int id = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "mnt_id: %d", &id) == 1)
			break;
	if (f)
		fclose(f);
	return id;
}

/* The superblock's device. What the kernel has in memory: DONT_SYNC asks nobody. */
static dev_t device_of(int fd)
{
	struct statx sx;

	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &sx) != 0)
		return 0;
	return makedev(sx.stx_dev_major, sx.stx_dev_minor);
}

/* fuse, fuse.sshfs, fuseblk, virtiofs; an overlay that any user may lay over one; memory of processes that may have mapped one. */
static bool type_may_wait(const char *type)
{
	return strncmp(type, "fuse", 4) == 0 || strcmp(type, "virtiofs") == 0 || strcmp(type, "overlay") == 0 ||
	       strcmp(type, "proc") == 0;
}

enum answer { UNKNOWN, NO, YES };

/* By the mount @id, else, for mounts of other namespaces, by the device: one superblock has one type wherever it is mounted. */
static enum answer look_up(FILE *mounts, int id, dev_t device)
{
	enum answer by_device = UNKNOWN;
	char *line = NULL;
	size_t cap = 0;

	while (getline(&line, &cap, mounts) > 0) {
		const char *end = strstr(line, " - ");
		unsigned major, minor;
		char type[64];
		int this_id;

		if (!end || sscanf(line, "%d %*d %u:%u", &this_id, &major, &minor) != 3 || sscanf(end, " - %63s", type) != 1)
			continue;
		if (this_id == id) {
			by_device = type_may_wait(type) ? YES : NO;
			break;
		}
		if (device && makedev(major, minor) == device)
			by_device = type_may_wait(type) ? YES : NO;
	}
	free(line);
	return by_device;
}

bool pb_file_may_wait(int fd)
{
	enum answer a = UNKNOWN;
	FILE *mounts;

	if (fcntl(fd, F_GET_SEALS) >= 0) /* memory, whether of memfd or tmpfs */
		return false;
	mounts = fopen("/proc/self/mountinfo", "re");
	if (mounts) {
		a = look_up(mounts, mount_of(fd), device_of(fd));
		fclose(mounts);
	}
	return a != NO;
}
