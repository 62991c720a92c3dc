/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Namespaces and the empty root. The spawner unshares what all its children can share because it is empty; each child
 * is cloned into its own pid and mount namespace.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "confine/confine.h"
#include "confine/layers.h"
#include "confine/steps.h"
#include "confine/test_layers.h"

static bool write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), saved;
	bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	saved = errno;
	if (fd >= 0)
		close(fd);
	errno = saved;
	return ok;
}

static pb_status user_namespace(struct pt2box_error *err)
{
	unsigned uid = geteuid(), gid = getegid();
	char uid_map[40], gid_map[40];

	snprintf(uid_map, sizeof(uid_map), "0 %u 1\n", uid);
	snprintf(gid_map, sizeof(gid_map), "0 %u 1\n", gid);
	/* The maps belong to root while the process is not dumpable. */
	prctl(PR_SET_DUMPABLE, 1);
	if (unshare(CLONE_NEWUSER) != 0)
		return pb_layer_failed(err, "user namespace", "unshare");
	if (!write_text("/proc/self/setgroups", "deny") || !write_text("/proc/self/uid_map", uid_map) ||
	    !write_text("/proc/self/gid_map", gid_map))
		return pb_layer_failed(err, "user namespace", "map");
	pb_layer_on("user namespace", "one uid, one gid");
	/* Nobody inside makes another one; rights over it are rights to much kernel code. */
	if (write_text("/proc/sys/user/max_user_namespaces", "0"))
		pb_layer_on("no nested user namespaces", "max_user_namespaces 0");
	else
		pb_layer_off("no nested user namespaces", "%s", strerror(errno));
	return PT2BOX_OK;
}

static pb_status unshare_one(const char *name, int flag, const char *detail, struct pt2box_error *err)
{
	if (flag == CLONE_NEWNET && pb_test_layer_off("network"))
		return PT2BOX_OK;
	if (unshare(flag) != 0)
		return pb_layer_failed(err, name, "unshare");
	pb_layer_on(name, "%s", detail);
	return PT2BOX_OK;
}

pb_status pb_step_spawner_namespaces(struct pt2box_error *err)
{
	pb_status st = PT2BOX_OK;

	if (!pb_confine_has_rights())
		st = user_namespace(err);
	else
		pb_layer_off("user namespace", "not needed: root gives every process a uid of its own");
	if (!st)
		st = unshare_one("network namespace", CLONE_NEWNET, "empty: not even the loopback is up", err);
	if (!st)
		st = unshare_one("ipc namespace", CLONE_NEWIPC, "empty", err);
	if (!st)
		st = unshare_one("uts namespace", CLONE_NEWUTS, "host name hidden", err);
	if (!st && (sethostname("pt2box", 6) != 0 || setdomainname("", 0) != 0))
		st = pb_layer_failed(err, "uts namespace", "sethostname");
	return st;
}

void pb_step_cgroup_namespace(void)
{
	if (unshare(CLONE_NEWCGROUP) != 0)
		pb_layer_off("cgroup namespace", "%s", strerror(errno));
	else
		pb_layer_on("cgroup namespace", "own");
}

/* Interfaces besides the loopback, 0 if there are none; -1 if that cannot be seen. */
static int foreign_interfaces(void)
{
	FILE *f = fopen("/proc/self/net/dev", "re");
	char line[512];
	int n = 0;

	if (!f)
		return -1;
	for (int i = 0; fgets(line, sizeof(line), f); i++)
		if (i >= 2 && strncmp(line + strspn(line, " "), "lo:", 3) != 0)
			n++;
	fclose(f);
	return n;
}

pb_status pb_step_check_namespaces(struct pt2box_error *err)
{
	int n = foreign_interfaces();

	/* Pid 1 is of the namespace's making; its only child that confines itself is the template. */
	if (getpid() != 1 && getppid() != 1 && !pb_test_layer_off("pid"))
		return pb_layer_missing(err, "pid namespace", "this process shares one");
	pb_layer_on("pid namespace", "own");
	if (n != 0 && !pb_test_layer_off("network"))
		return pb_layer_missing(err, "network namespace", n < 0 ? "/proc/self/net cannot be read"
									: "there are interfaces in it");
	pb_layer_on("network namespace", "no interface but the loopback");
	return PT2BOX_OK;
}

pb_status pb_step_empty_root(struct pt2box_error *err)
{
	static const char name[] = "empty root";

	if (pb_test_layer_off("root"))
		return PT2BOX_OK;
	/* Nothing of this may reach the namespace that ours was copied from. */
	if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
		return pb_layer_failed(err, name, "making mounts private");
	/* /proc: a directory that is certainly there, and that may go first. */
	if (mount("none", "/proc", "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
		  "size=4k,nr_inodes=2,mode=0555") != 0)
		return pb_layer_failed(err, name, "mounting an empty directory");
	if (chdir("/proc") != 0)
		return pb_layer_failed(err, name, "chdir");
	/* The old root ends up on top of the new one, where it can be detached without a name (pivot_root(2)). */
	if (syscall(SYS_pivot_root, ".", ".") != 0)
		return pb_layer_failed(err, name, "pivot_root");
	if (umount2(".", MNT_DETACH) != 0 || chdir("/") != 0)
		return pb_layer_failed(err, name, "detaching the old root");
	if (access("/proc", F_OK) == 0 || access("/..", W_OK) == 0)
		return pb_layer_missing(err, name, "it is not empty");
	pb_layer_on(name, "read-only, nothing in it, no /proc");
	return PT2BOX_OK;
}
