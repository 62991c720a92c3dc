/* SPDX-License-Identifier: Apache-2.0 */
/* Compiled policies: found, asked, and put into words. */
#include "confine/policy.h"

#include <linux/audit.h>
#include <stdio.h>
#include <string.h>

#include "confine/confine.h"

const struct pb_policy *pb_policy_find(const char *name)
{
	for (size_t i = 0; i < pb_n_policies; i++)
		if (strcmp(pb_policies[i].name, name) == 0)
			return &pb_policies[i];
	return NULL;
}

const char *pb_syscall_name(int nr, char buf[24])
{
	for (size_t i = 0; i < pb_n_syscalls; i++)
		if (pb_syscalls[i].nr == nr)
			return pb_syscalls[i].name;
	snprintf(buf, 24, "call %d", nr);
	return buf;
}

static uint32_t load_word(const struct seccomp_data *d, uint32_t offset)
{
	uint32_t w = 0;

	if (offset % 4 == 0 && offset <= sizeof(*d) - sizeof(w))
		memcpy(&w, (const char *)d + offset, sizeof(w));
	return w;
}

/* The few instructions that filters are made of. The kernel has checked ours when it took them: jumps go forward. */
uint32_t pb_policy_eval(const struct pb_policy *p, const struct seccomp_data *d)
{
	uint32_t a = 0;

	for (uint32_t pc = 0; pc < p->n_code; pc++) {
		const struct sock_filter *i = &p->code[pc];

		switch (i->code) {
		case BPF_LD | BPF_W | BPF_ABS:
			a = load_word(d, i->k);
			break;
		case BPF_ALU | BPF_AND | BPF_K:
			a &= i->k;
			break;
		case BPF_JMP | BPF_JA:
			pc += i->k;
			break;
		case BPF_JMP | BPF_JEQ | BPF_K:
			pc += a == i->k ? i->jt : i->jf;
			break;
		case BPF_JMP | BPF_JGT | BPF_K:
			pc += a > i->k ? i->jt : i->jf;
			break;
		case BPF_JMP | BPF_JGE | BPF_K:
			pc += a >= i->k ? i->jt : i->jf;
			break;
		case BPF_JMP | BPF_JSET | BPF_K:
			pc += a & i->k ? i->jt : i->jf;
			break;
		case BPF_RET | BPF_K:
			return i->k;
		default:
			return SECCOMP_RET_KILL_PROCESS;
		}
	}
	return SECCOMP_RET_KILL_PROCESS;
}

uint32_t pb_policy_stricter(uint32_t a, uint32_t b)
{
	/* Actions are ordered as signed numbers: KILL_PROCESS is negative. */
	return (int32_t)(a & SECCOMP_RET_ACTION_FULL) <= (int32_t)(b & SECCOMP_RET_ACTION_FULL) ? a : b;
}

/* The last line about a call: a reader who sees it sees what would have been allowed. */
static const struct pb_policy_line *line_about(const struct pb_policy *p, const char *call)
{
	const struct pb_policy_line *found = NULL;

	for (uint32_t i = 0; p && i < p->n_lines; i++)
		if (strcmp(p->lines[i].call, call) == 0)
			found = &p->lines[i];
	return found;
}

void pb_confine_explain(const struct seccomp_data *d, const char *policy, char *dst, size_t cap)
{
	const struct pb_policy_line *l;
	char buf[24], line[240];
	const char *call;

	if (d->arch != AUDIT_ARCH_X86_64 || (d->nr & 0x40000000)) {
		snprintf(dst, cap, "call %d of another architecture (0x%x)", d->nr, d->arch);
		return;
	}
	call = pb_syscall_name(d->nr, buf);
	l = line_about(pb_policy_find(policy), call);
	if (l)
		snprintf(line, sizeof(line), "line %d of %s.policy allows only other arguments: %.120s", l->line, l->file,
			 l->text);
	else
		snprintf(line, sizeof(line), "no line of %s.policy names it", policy);
	snprintf(dst, cap, "%s(0x%llx, 0x%llx, 0x%llx, 0x%llx, 0x%llx, 0x%llx): %s", call,
		 (unsigned long long)d->args[0], (unsigned long long)d->args[1], (unsigned long long)d->args[2],
		 (unsigned long long)d->args[3], (unsigned long long)d->args[4], (unsigned long long)d->args[5], line);
}
