/* SPDX-License-Identifier: Apache-2.0 */
/* Filters compiled from policies/ at build time: BPF, and the lines it came from. */
#ifndef PT2BOX_CONFINE_POLICY_H
#define PT2BOX_CONFINE_POLICY_H

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>

struct pb_policy_line {
	const char *call;
	const char *file; /* "base", "worker-run": where the line stands */
	int line;
	const char *text; /* call, action, condition and reason as written */
};

struct pb_policy {
	const char *name;
	const struct sock_filter *code;
	uint16_t n_code;
	const struct pb_policy_line *lines;
	uint32_t n_lines;
	uint32_t n_calls; /* distinct calls that are allowed */
};

extern const struct pb_policy pb_policies[];
extern const size_t pb_n_policies;

/* NULL if there is none of that name: our bug. */
const struct pb_policy *pb_policy_find(const char *name);
/* What the kernel would answer: SECCOMP_RET_* with its data. Kills for what is no valid filter. */
uint32_t pb_policy_eval(const struct pb_policy *p, const struct seccomp_data *d);
/* Of two filters' answers the one that the kernel would follow. */
uint32_t pb_policy_stricter(uint32_t a, uint32_t b);
/* "openat", or "call 437" for what the build did not know. */
const char *pb_syscall_name(int nr, char buf[24]);

struct pb_syscall_row {
	int nr;
	const char *name;
};
extern const struct pb_syscall_row pb_syscalls[];
extern const size_t pb_n_syscalls;

#endif
