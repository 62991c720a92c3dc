/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which lines of policies/ are needed: runs a command and all that it starts under ptrace, recognises our filters as they are
 * installed, and notes for every call which line of them it matched. Lines that no run needs should go.
 *
 *	policy_hits FILE COMMAND...
 *
 * FILE gets a line "policy: rule" for each that was needed, together with what it had before. Calls that fell to a policy's
 * default are told on standard error. The status is the command's.
 */
#include <errno.h>
#include <linux/audit.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "confine/policy.h"
#include "tests/lib/policy_rules.h"

#define FILTERS_MAX 8
#define TASKS_MAX 4096
#define LINES_MAX 512
#define POLICIES_MAX 64
#define OPTIONS                                                                                                        \
	(PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL)

struct task {
	pid_t tid, tgid; /* tid 0: free */
	bool known;	 /* whose child it is */
	int filter[FILTERS_MAX], n_filters, coming;
	bool coming_all;
};

static struct task tasks[TASKS_MAX];
static struct rule rules[POLICIES_MAX][LINES_MAX];
static uint64_t hits[POLICIES_MAX][LINES_MAX], defaults[POLICIES_MAX][512];

static struct task *task_of(pid_t tid, bool make)
{
	struct task *free_one = NULL;

	for (int i = 0; i < TASKS_MAX; i++) {
		if (tasks[i].tid == tid)
			return &tasks[i];
		if (!tasks[i].tid && !free_one)
			free_one = &tasks[i];
	}
	if (make && free_one)
		*free_one = (struct task){.tid = tid, .tgid = tid, .coming = -1};
	return make ? free_one : NULL;
}

static pid_t tgid_of(pid_t tid)
{
	char path[64], line[128];
	int tgid = tid;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", tid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "Tgid: %d", &tgid) == 1)
			break;
	if (f)
		fclose(f);
	return tgid;
}

static bool peek(pid_t pid, uint64_t at, void *to, size_t bytes)
{
	struct iovec local = {to, bytes}, remote = {(void *)at, bytes};

	return process_vm_readv(pid, &local, 1, &remote, 1, 0) == (ssize_t)bytes;
}

/* -1: none of ours. */
static int recognise(pid_t pid, uint64_t prog_at)
{
	static struct sock_filter code[BPF_MAXINSNS];
	struct sock_fprog prog;

	if (!peek(pid, prog_at, &prog, sizeof(prog)) || prog.len > BPF_MAXINSNS ||
	    !peek(pid, (uint64_t)prog.filter, code, prog.len * sizeof(code[0])))
		return -1;
	for (size_t i = 0; i < pb_n_policies; i++)
		if (prog.len == pb_policies[i].n_code && memcmp(code, pb_policies[i].code, prog.len * sizeof(code[0])) == 0)
			return (int)i;
	return -1;
}

static void note(const struct task *t, const struct seccomp_data *d)
{
	for (int i = 0; i < t->n_filters; i++) {
		const struct pb_policy *p = &pb_policies[t->filter[i]];
		bool any = false;

		for (uint32_t k = 0; k < p->n_lines; k++)
			if (rule_matches(&rules[t->filter[i]][k], d)) {
				hits[t->filter[i]][k]++;
				any = true;
			}
		if (!any && d->nr >= 0 && d->nr < 512)
			defaults[t->filter[i]][d->nr]++;
	}
}

static void push(struct task *t, int filter)
{
	if (t->n_filters < FILTERS_MAX)
		t->filter[t->n_filters++] = filter;
}

static void at_call(struct task *t)
{
	struct __ptrace_syscall_info si;

	if (ptrace(PTRACE_GET_SYSCALL_INFO, t->tid, sizeof(si), &si) <= 0)
		return;
	if (si.op == PTRACE_SYSCALL_INFO_ENTRY) {
		struct seccomp_data d = {.nr = (int)si.entry.nr, .arch = si.arch};

		memcpy(d.args, si.entry.args, sizeof(d.args));
		note(t, &d);
		t->coming = -1;
		if (d.arch == AUDIT_ARCH_X86_64 && d.nr == SYS_seccomp && d.args[0] == SECCOMP_SET_MODE_FILTER)
			t->coming = recognise(t->tid, d.args[2]);
		t->coming_all = d.args[1] & SECCOMP_FILTER_FLAG_TSYNC;
	} else if (si.op == PTRACE_SYSCALL_INFO_EXIT && t->coming >= 0) {
		if (!si.exit.is_error && t->coming_all)
			for (int i = 0; i < TASKS_MAX; i++)
				if (tasks[i].tid && tasks[i].tgid == t->tgid && &tasks[i] != t)
					push(&tasks[i], t->coming);
		if (!si.exit.is_error)
			push(t, t->coming);
		t->coming = -1;
	}
}

static void at_birth(const struct task *parent)
{
	unsigned long tid = 0;
	struct task *t;
	bool waits;

	if (ptrace(PTRACE_GETEVENTMSG, parent->tid, 0, &tid) != 0 || !tid)
		return;
	t = task_of((pid_t)tid, false);
	waits = t != NULL;
	if (!t)
		t = task_of((pid_t)tid, true);
	if (!t)
		return;
	t->known = true;
	t->tgid = tgid_of(t->tid);
	memcpy(t->filter, parent->filter, sizeof(t->filter));
	t->n_filters = parent->n_filters;
	if (waits) /* its first stop came before this */
		ptrace(PTRACE_SYSCALL, t->tid, 0, 0);
}

static void at_stop(pid_t tid, int status)
{
	struct task *t = task_of(tid, true);
	const int sig = WSTOPSIG(status), event = status >> 16;

	if (!t)
		return;
	if (!t->known)
		return; /* until its parent says so */
	if (sig == (SIGTRAP | 0x80)) {
		at_call(t);
		ptrace(PTRACE_SYSCALL, tid, 0, 0);
	} else if (event == PTRACE_EVENT_FORK || event == PTRACE_EVENT_VFORK || event == PTRACE_EVENT_CLONE) {
		at_birth(t);
		ptrace(PTRACE_SYSCALL, tid, 0, 0);
	} else if (event == PTRACE_EVENT_STOP && sig != SIGTRAP) {
		ptrace(PTRACE_LISTEN, tid, 0, 0);
	} else {
		ptrace(PTRACE_SYSCALL, tid, 0, event ? 0 : sig);
	}
}

static int follow(pid_t command)
{
	int status, result = 1;
	pid_t tid;

	for (;;) {
		tid = waitpid(-1, &status, __WALL);
		if (tid < 0 && errno == EINTR)
			continue;
		if (tid < 0)
			return result;
		if (WIFSTOPPED(status)) {
			at_stop(tid, status);
			continue;
		}
		if (tid == command) {
			result = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
			return result;
		}
		if (task_of(tid, false))
			task_of(tid, false)->tid = 0;
	}
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void write_hits(const char *path)
{
	static char *all[POLICIES_MAX * LINES_MAX];
	size_t n = 0;
	char line[512];
	FILE *f = fopen(path, "re");

	while (f && n < POLICIES_MAX * LINES_MAX && fgets(line, sizeof(line), f))
		all[n++] = strdup(line);
	if (f)
		fclose(f);
	for (size_t p = 0; p < pb_n_policies; p++)
		for (uint32_t k = 0; k < pb_policies[p].n_lines; k++) {
			const struct pb_policy_line *l = &pb_policies[p].lines[k];
			int len = (int)strcspn(l->text, "|");

			while (len && l->text[len - 1] == ' ')
				len--;
			snprintf(line, sizeof(line), "%s: %.*s\n", l->file, len, l->text);
			if (hits[p][k] && n < POLICIES_MAX * LINES_MAX)
				all[n++] = strdup(line);
		}
	qsort(all, n, sizeof(all[0]), by_text);
	f = fopen(path, "we");
	for (size_t i = 0; f && i < n; i++)
		if (i == 0 || strcmp(all[i], all[i - 1]) != 0)
			fputs(all[i], f);
	if (f)
		fclose(f);
}

static void tell_defaults(void)
{
	for (size_t p = 0; p < pb_n_policies; p++)
		for (int nr = 0; nr < 512; nr++)
			if (defaults[p][nr]) {
				char buf[24];

				fprintf(stderr, "policy_hits: %s has no line for %s (%llu times)\n", pb_policies[p].name,
					pb_syscall_name(nr, buf), (unsigned long long)defaults[p][nr]);
			}
}

int main(int argc, char **argv)
{
	int go[2], status;
	char byte = 'g';
	pid_t pid;

	if (argc < 3 || pb_n_policies > POLICIES_MAX || pipe(go) != 0) {
		fprintf(stderr, "usage: policy_hits FILE COMMAND...\n");
		return 2;
	}
	for (size_t p = 0; p < pb_n_policies; p++)
		for (uint32_t k = 0; k < pb_policies[p].n_lines && k < LINES_MAX; k++)
			rules[p][k] = rule_read(&pb_policies[p].lines[k]);
	pid = fork();
	if (pid == 0) {
		if (read(go[0], &byte, 1) != 1)
			_exit(126);
		close(go[0]);
		close(go[1]);
		execvp(argv[2], argv + 2);
		_exit(127);
	}
	if (ptrace(PTRACE_SEIZE, pid, 0, OPTIONS) != 0) {
		perror("policy_hits: ptrace");
		return 2;
	}
	task_of(pid, true)->known = true;
	if (write(go[1], &byte, 1) != 1 || ptrace(PTRACE_INTERRUPT, pid, 0, 0) != 0)
		return 2;
	status = follow(pid);
	write_hits(argv[1]);
	tell_defaults();
	return status;
}
