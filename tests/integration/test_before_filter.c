/* SPDX-License-Identifier: Apache-2.0 */
/*
 * No instruction of a model runs before the run filter is in force. Shown by tracing the real programs from their start:
 * from the moment at which code of the model is mapped into the template, the template is single-stepped, and at every
 * instruction its program counter is compared with the model's code, until the kernel has accepted the second filter.
 * Then the stepping goes on until the first instruction of the model: the detector does see it, and it comes after.
 *
 * Needs nothing but the registers of the traced: works as root and, with the same rights as the spawner, as a user.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "include/pt2box.h"
#include "tests/lib/broker.h"
#include "tests/lib/package.h"

#define TASKS_MAX 4096
#define RANGES_MAX 8
#define STEPS_MAX 30000000l
#define NEW_LISTENER 8u

enum phase {
	STARTING,   /* no filter with a listener yet: trusted code only */
	LOADING,    /* the load filter is in force: whatever is mapped executable now is the model */
	STEPPING,   /* the model's code is mapped: every instruction is looked at */
	FILTERED,   /* the run filter is in force */
	SEEN,	    /* the first instruction of the model has run */
};

struct task {
	pid_t tid, tgid;
	bool entered; /* a call: arguments are known at the entry, the result at the exit */
	uint64_t nr, args[6];
};

static struct {
	struct task task[TASKS_MAX];
	size_t n_tasks;
	pid_t broker, client;
	int client_status;
	bool client_done;

	/* The template. */
	pid_t tgid;
	enum phase phase;
	struct {
		uint64_t begin, end;
	} code[RANGES_MAX];
	size_t n_code;
	long steps, steps_after, early; /* early: instructions of the model before the filter */
	int threads;			/* of the template when stepping began */
	int other_steps;		/* stops of another thread of the template meanwhile */
	long began_ms, stepped_ms;
	char mapped_from[128];
} t;

static void on_alarm(int sig)
{
	static const char text[] = "test_before_filter: overran its time\n";

	(void)sig;
	(void)!write(2, text, sizeof(text) - 1);
	_exit(1); /* PTRACE_O_EXITKILL ends all that is traced */
}

static pid_t tgid_of(pid_t tid)
{
	char path[64], line[128];
	pid_t tgid = tid;
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

static struct task *task_of(pid_t tid)
{
	for (size_t i = 0; i < t.n_tasks; i++)
		if (t.task[i].tid == tid)
			return &t.task[i];
	if (t.n_tasks == TASKS_MAX)
		return NULL;
	t.task[t.n_tasks] = (struct task){.tid = tid, .tgid = tgid_of(tid)};
	return &t.task[t.n_tasks++];
}

static void forget(pid_t tid)
{
	for (size_t i = 0; i < t.n_tasks; i++)
		if (t.task[i].tid == tid)
			t.task[i] = t.task[--t.n_tasks];
}

static int threads_of(pid_t tgid)
{
	int n = 0;

	for (size_t i = 0; i < t.n_tasks; i++)
		n += t.task[i].tgid == tgid;
	return n;
}

static bool in_model(uint64_t rip)
{
	for (size_t i = 0; i < t.n_code; i++)
		if (rip >= t.code[i].begin && rip < t.code[i].end)
			return true;
	return false;
}

/* What the kernel says was mapped, where it lets us look. */
static void note_origin(pid_t tid, uint64_t at)
{
	char path[64], line[512];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/maps", tid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		unsigned long begin, end;
		int name = 0;

		if (sscanf(line, "%lx-%lx %*s %*s %*s %*s %n", &begin, &end, &name) >= 2 && begin == at && name)
			snprintf(t.mapped_from, sizeof(t.mapped_from), "%.*s", (int)strcspn(line + name, "\n"), line + name);
	}
	if (f)
		fclose(f);
}

/* ---- system calls of the traced ---- */

/* A call that has ended well: number, arguments, result. */
static void on_call(pid_t tid, pid_t tgid, uint64_t nr, const uint64_t a[6], int64_t rval)
{
	if (nr == SYS_seccomp && a[0] == 1 && rval >= 0) {
		if (t.phase == STARTING && (a[1] & NEW_LISTENER)) {
			t.tgid = tgid;
			t.phase = LOADING;
		} else if (tgid == t.tgid && t.phase == STEPPING) {
			t.phase = FILTERED;
			t.stepped_ms = test_now_ms();
		}
	}
	if (tgid == t.tgid && (t.phase == LOADING || t.phase == STEPPING) && nr == SYS_mmap && (a[2] & PROT_EXEC) &&
	    (int)a[4] >= 0 && rval > 0 && t.n_code < RANGES_MAX) {
		t.code[t.n_code].begin = (uint64_t)rval;
		t.code[t.n_code++].end = (uint64_t)rval + ((a[1] + 4095) & ~4095ull);
		note_origin(tid, (uint64_t)rval);
		if (t.phase == LOADING) {
			t.phase = STEPPING;
			t.threads = threads_of(tgid);
			t.began_ms = test_now_ms();
		}
	}
}

static void on_syscall_stop(struct task *k)
{
	struct __ptrace_syscall_info si;

	if (ptrace(PTRACE_GET_SYSCALL_INFO, k->tid, (void *)sizeof(si), &si) <= 0)
		return;
	if (si.op == PTRACE_SYSCALL_INFO_ENTRY) {
		k->entered = true;
		k->nr = si.entry.nr;
		for (int i = 0; i < 6; i++)
			k->args[i] = si.entry.args[i];
	} else if (si.op == PTRACE_SYSCALL_INFO_EXIT && k->entered) {
		k->entered = false;
		if (!si.exit.is_error)
			on_call(k->tid, k->tgid, k->nr, k->args, si.exit.rval);
	}
}

/* One instruction further, between the mapping of the model and its first instruction. */
static void on_step(struct task *k)
{
	struct user_regs_struct r;
	const uint64_t *args;

	if (ptrace(PTRACE_GETREGS, k->tid, NULL, &r) != 0)
		return;
	if (t.phase == STEPPING)
		t.steps++;
	else
		t.steps_after++;
	if (in_model(r.rip)) {
		if (t.phase == STEPPING)
			t.early++;
		else
			t.phase = SEEN;
		return;
	}
	/* A step over a system call leaves its number; any other step leaves -1. */
	args = (const uint64_t[6]){r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9};
	if ((int64_t)r.orig_rax >= 0)
		on_call(k->tid, k->tgid, r.orig_rax, args, (int64_t)r.rax);
}

/* ---- the loop ---- */

static bool stepped(const struct task *k)
{
	return k->tgid == t.tgid && (t.phase == STEPPING || t.phase == FILTERED);
}

static void go_on(struct task *k, int sig)
{
	int how = stepped(k) ? PTRACE_SINGLESTEP : t.phase == SEEN ? PTRACE_CONT : PTRACE_SYSCALL;

	ptrace(how, k->tid, NULL, (void *)(intptr_t)sig);
}

static void on_stop(struct task *k, int status)
{
	int sig = WSTOPSIG(status), event = status >> 16;

	if (stepped(k) && t.threads > 1)
		t.other_steps++;
	if (event == PTRACE_EVENT_STOP && (sig == SIGSTOP || sig == SIGTSTP || sig == SIGTTIN || sig == SIGTTOU)) {
		ptrace(PTRACE_LISTEN, k->tid, NULL, NULL);
		return;
	}
	if (event) {
		go_on(k, 0);
		return;
	}
	if (sig == (SIGTRAP | 0x80)) {
		on_syscall_stop(k);
		go_on(k, 0);
		return;
	}
	if (sig == SIGTRAP && stepped(k)) {
		on_step(k);
		go_on(k, 0);
		return;
	}
	go_on(k, sig);
}

static bool has_ended(pid_t pid, int status)
{
	if (!WIFEXITED(status) && !WIFSIGNALED(status))
		return false;
	if (pid == t.client) {
		t.client_status = status;
		t.client_done = true;
		kill(t.broker, SIGTERM);
	}
	forget(pid);
	return true;
}

/* Until everything that descends from us has ended. */
static void trace(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, __WALL)) > 0 || (pid < 0 && errno == EINTR)) {
		struct task *k;

		if (pid < 0 || has_ended(pid, status) || pid == t.client)
			continue;
		k = task_of(pid);
		if (k && WIFSTOPPED(status))
			on_stop(k, status);
		if (t.steps + t.steps_after > STEPS_MAX)
			on_alarm(0);
	}
}

/* ---- the two children ---- */

static struct test_paths paths;

static pid_t start_broker(const char *socket_path)
{
	int go[2];
	char byte, program[400];
	pid_t pid;

	snprintf(program, sizeof(program), "%s/pt2boxd", paths.programs);
	if (pipe(go) != 0)
		return -1;
	pid = fork();
	if (pid == 0) {
		close(go[1]);
		if (read(go[0], &byte, 1) != 1)
			_exit(126);
		close(go[0]);
		execl(program, "pt2boxd", "--socket", socket_path, "--load-deadline", "120000", NULL);
		_exit(127);
	}
	close(go[0]);
	if (ptrace(PTRACE_SEIZE, pid, NULL,
		   (void *)(PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC |
			    PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL)) != 0) {
		perror("ptrace");
		kill(pid, SIGKILL);
		return -1;
	}
	/* From its first call on. */
	ptrace(PTRACE_INTERRUPT, pid, NULL, NULL);
	(void)!write(go[1], "g", 1);
	close(go[1]);
	return pid;
}

static int load_and_run(const char *socket_path, const char *pkg, const char *in_path)
{
	struct test_array *in = in_path ? test_npz_first(in_path) : NULL;
	struct pt2box_tensor *x, *out = NULL;
	struct pt2box_error e = {.status = PT2BOX_OK};
	struct pt2box *c = NULL;
	struct pt2box_model *m = NULL;
	int64_t sizes[16] = {16};
	enum pt2box_status st = PT2BOX_BROKER_LOST;

	for (int i = 0; in && i < in->ndim; i++)
		sizes[i] = in->shape[i];
	for (int i = 0; i < 500 && st; i++) {
		st = pt2box_open(socket_path, &c, &e);
		if (st)
			usleep(10000);
	}
	if (!st)
		st = pt2box_load_path(c, pkg, NULL, &m, &e);
	if (!st)
		st = pt2box_tensor_alloc(m, PT2BOX_FLOAT32, in ? in->ndim : 1, sizes, &x, &e);
	if (!st) {
		const struct pt2box_tensor_info *info = pt2box_tensor_get_info(x);

		memset(info->data, 0, (size_t)info->numel * sizeof(float));
		if (in)
			memcpy(info->data, in->data, in->bytes);
		st = pt2box_run(m, &x, 1, NULL, &out, &e);
	}
	if (st)
		fprintf(stderr, "%s: %s\n", pt2box_status_name(st), e.text);
	if (!st) {
		pt2box_tensor_free(out);
		pt2box_tensor_free(x);
	}
	pt2box_unload(m);
	pt2box_close(c);
	free(in);
	return (int)st;
}

static pid_t start_client(const char *socket_path, const char *pkg, const char *in_path)
{
	pid_t pid = fork();

	if (pid == 0)
		_exit(load_and_run(socket_path, pkg, in_path));
	return pid;
}

/* ---- tests ---- */

static void check(const char *what)
{
	printf("    %s: code from %s; %ld instructions from its mapping to the run filter (%ld ms), %ld of them the model's; "
	       "the model's first instruction %ld instructions later\n",
	       what, t.mapped_from[0] ? t.mapped_from : "(not readable)", t.steps, t.stepped_ms - t.began_ms, t.early,
	       t.steps_after);
	fflush(stdout);
	assert_int_equal(t.client_status, 0);
	assert_true(t.n_code >= 1);
	if (t.mapped_from[0])
		assert_non_null(strstr(t.mapped_from, "pt2box-model"));
	/* Nobody else in that process could have run it meanwhile. */
	assert_int_equal(t.threads, 1);
	assert_int_equal(t.other_steps, 0);
	assert_true(t.steps > 100);
	assert_int_equal(t.early, 0);
	assert_int_equal(t.phase, SEEN);
	assert_true(t.steps_after > 0);
}

static void trace_package(const char *what, const char *pkg, const char *in_path)
{
	char dir[] = "/tmp/pt2box-trace-XXXXXX", socket_path[64], own[64];
	struct test_package p = {.so_path = pkg};

	assert_non_null(mkdtemp(dir));
	chmod(dir, 0755);
	snprintf(socket_path, sizeof(socket_path), "%s/socket", dir);
	if (strstr(pkg, ".so")) {
		snprintf(own, sizeof(own), "%s/model.pt2", dir);
		assert_int_equal(test_package_write(own, &p), 0);
		pkg = own;
	}
	memset(&t, 0, sizeof(t));
	t.broker = start_broker(socket_path);
	assert_true(t.broker > 0);
	t.client = start_client(socket_path, pkg, in_path);
	trace();
	test_remove_tree(dir);
	check(what);
}

static void test_hostile_constructor(void **state)
{
	char so[400];

	(void)state;
	snprintf(so, sizeof(so), "%s/marker.0.so", paths.models);
	trace_package("a model with a constructor", so, NULL);
}

static void test_real_package(void **state)
{
	char pkg[400], in[400];

	(void)state;
	snprintf(pkg, sizeof(pkg), "%s/model.pt2", paths.honest);
	snprintf(in, sizeof(in), "%s/in.npz", paths.honest);
	trace_package("a real package", pkg, in);
}

/* Tracer and traced take turns: on one CPU that costs no interrupt of another. */
static void stay_on_this_cpu(void)
{
	cpu_set_t one;
	int cpu = sched_getcpu();

	CPU_ZERO(&one);
	CPU_SET(cpu < 0 ? 0 : cpu, &one);
	(void)sched_setaffinity(0, sizeof(one), &one);
}

/* Binding a real package's symbols takes some 850 000 instructions, at 20 us each here: once is enough. */
static int run_all(const char *name, bool real)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hostile_constructor),
		cmocka_unit_test(test_real_package),
	};

	stay_on_this_cpu();
	signal(SIGALRM, on_alarm);
	alarm(real ? 200 : 80); /* together less than the runner allows */
	if (!real)
		return _cmocka_run_group_tests(name, tests, 1, NULL, NULL);
	return cmocka_run_group_tests_name(name, tests, NULL, NULL);
}

static int as_ordinary_user(void)
{
	return run_all("as an ordinary user", false);
}

int main(void)
{
	int bad;

	test_paths_init(&paths);
	if (geteuid() != 0)
		return run_all("as this user", true);
	bad = run_all("as root", true);
	alarm(0);
	return test_as_ordinary_user(&paths, as_ordinary_user) || bad;
}
