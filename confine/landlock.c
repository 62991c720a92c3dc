/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Landlock: everything that this kernel can deny is denied, by a ruleset without rules. A second wall behind the empty
 * root and the filter; not required, for it is off on many kernels. Constants are spelled out: headers are older than
 * kernels. Source: Documentation/userspace-api/landlock.rst of Linux 6.18.
 */
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "confine/layers.h"
#include "confine/steps.h"

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

void pb_step_landlock(bool signals)
{
	const size_t known = sizeof(by_abi) / sizeof(by_abi[0]) - 1;
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, CREATE_RULESET_VERSION);
	struct ruleset_attr attr;
	size_t bytes;
	int fd;

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
	if (fd < 0 || syscall(SYS_landlock_restrict_self, fd, 0) != 0)
		pb_layer_off(LAYER, "%s", strerror(errno));
	else
		pb_layer_on(LAYER, "ABI %ld: files%s%s denied", abi, attr.net ? ", TCP" : "",
			    attr.scoped ? ", sockets and signals to outside" : "");
	if (fd >= 0)
		close(fd);
}
