/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Landlock: everything that this kernel can deny is denied, by a ruleset without rules. A second wall behind the empty
 * root and the filter; not required, for it is off on many kernels. Constants are spelled out: headers are older than
 * kernels. Source: Documentation/userspace-api/landlock.rst of Linux 6.18.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "confine/layers.h"
#include "confine/steps.h"
#include "confine/test_layers.h"

#define LAYER "landlock"
#define CREATE_RULESET_VERSION 1u
#define SCOPE_ABSTRACT_UNIX 1u
#define SCOPE_SIGNAL 2u

struct ruleset_attr {
	uint64_t fs, net, scoped;
};

static const struct ruleset_attr by_abi[] = {
	{0, 0, 0},	 {0x1fff, 0, 0}, {0x3fff, 0, 0}, /* 2: refer */
	{0x7fff, 0, 0},						 /* 3: truncate */
	{0x7fff, 3, 0},						 /* 4: TCP */
	{0xffff, 3, 0},						 /* 5: ioctl on devices */
	{0xffff, 3, SCOPE_ABSTRACT_UNIX | SCOPE_SIGNAL},	 /* 6: scopes */
};

#define RULE_PATH_BENEATH 1u
#define READ_FILE (1u << 2)
#define READ_DIR (1u << 3)

struct path_beneath_attr {
	uint64_t allowed;
	int32_t fd;
} __attribute__((packed));

static bool allow_reading(int ruleset, const char *path, uint64_t what)
{
	struct path_beneath_attr a = {.allowed = what, .fd = open(path, O_PATH | O_CLOEXEC)};
	bool ok = a.fd >= 0 && syscall(SYS_landlock_add_rule, ruleset, RULE_PATH_BENEATH, &a, 0) == 0;

	if (a.fd >= 0)
		close(a.fd);
	return ok;
}

static void restrict_self(bool signals, bool broker)
{
	const size_t known = sizeof(by_abi) / sizeof(by_abi[0]) - 1;
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, CREATE_RULESET_VERSION);
	struct ruleset_attr attr;
	size_t bytes;
	int fd;

	if (pb_test_layer_off("landlock"))
		return;
	if (abi <= 0) {
		pb_layer_off(LAYER, "%s", abi < 0 ? strerror(errno) : "no ABI");
		return;
	}
	attr = by_abi[(size_t)abi < known ? (size_t)abi : known];
	if (signals)
		attr.scoped &= ~(uint64_t)SCOPE_SIGNAL;
	/* Older kernels want the attribute without fields that they do not know, or those zero. */
	bytes = attr.scoped ? sizeof(attr) : attr.net ? 2 * sizeof(uint64_t) : sizeof(uint64_t);
	fd = (int)syscall(SYS_landlock_create_ruleset, &attr, bytes, 0);
	if (fd >= 0 && broker &&
	    (!allow_reading(fd, "/proc", READ_FILE | READ_DIR) || !allow_reading(fd, "/dev/null", READ_FILE))) {
		pb_layer_off(LAYER, "%s", strerror(errno));
		close(fd);
		return;
	}
	if (fd < 0 || syscall(SYS_landlock_restrict_self, fd, 0) != 0)
		pb_layer_off(LAYER, "%s", strerror(errno));
	else
		pb_layer_on(LAYER, "ABI %ld: files%s%s%s denied", abi, broker ? " but those of /proc" : "", attr.net ? ", TCP" : "",
			    attr.scoped ? ", sockets and signals to outside" : "");
	if (fd >= 0)
		close(fd);
}

void pb_step_landlock(bool signals)
{
	restrict_self(signals, false);
}

void pb_step_landlock_broker(void)
{
	restrict_self(false, true);
}
