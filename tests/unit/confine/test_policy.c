/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Policies: what the text says is what the filter answers. The text is read here again, by other code than the compiler's,
 * and asked about the arguments that every line names, about those beside them, with garbage in the high half, under
 * other architectures, and over every call number. The kernel itself is then asked the same (see kernel_verdicts()).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <linux/audit.h>
#include <string.h>
#include <sys/mman.h>

#include "confine/confine.h"
#include "confine/policy.h"
#include "tests/unit/confine/child.h"

#define HIGH 0xdeadbeef00000000ull
#define X32 0x40000000
#define NRS 601

static const char *const loaded[] = {"intake",	   "warden",		"worker-explain",	"worker-load",
				     "worker-run", "worker-run-strict", "worker-steady-strict", "worker-steady",
				     "worker-load-torch", "worker-run-torch", "worker-steady-torch",
				     "worker-load-torch-strict", "worker-run-torch-strict", "worker-steady-torch-strict",
				     "ops-python"};
#define N_LOADED (sizeof(loaded) / sizeof(loaded[0]))

/* ---- a second reader of the text ---- */

struct cond {
	unsigned arg;
	bool only;
	uint64_t value[16];
	int n;
};

struct rule {
	int nr;
	uint32_t verdict;
	struct cond cond[6];
	int n;
};

static int number_of(const char *call)
{
	for (size_t i = 0; i < pb_n_syscalls; i++)
		if (strcmp(pb_syscalls[i].name, call) == 0)
			return pb_syscalls[i].nr;
	fail_msg("no number of %s", call);
	return -1;
}

static uint32_t verdict_of(const char *action, const char *name)
{
	static const struct {
		const char *name;
		uint32_t value;
	} errs[] = {{"EPERM", EPERM}, {"ENOSYS", ENOSYS}, {"EACCES", EACCES}, {"ENOENT", ENOENT}, {"EINVAL", EINVAL}};

	if (strcmp(action, "allow") == 0)
		return SECCOMP_RET_ALLOW;
	if (strcmp(action, "notify") == 0)
		return SECCOMP_RET_USER_NOTIF;
	for (size_t i = 0; strcmp(action, "errno") == 0 && i < sizeof(errs) / sizeof(errs[0]); i++)
		if (strcmp(name, errs[i].name) == 0)
			return SECCOMP_RET_ERRNO | errs[i].value;
	fail_msg("action %s %s", action, name);
	return 0;
}

static struct rule read_rule(const struct pb_policy_line *line)
{
	char text[512], *save = NULL, *w;
	struct rule r = {.nr = number_of(line->call)};
	char action[16], *rest;

	snprintf(text, sizeof(text), "%s", line->text);
	*strchr(text, '|') = '\0';
	assert_string_equal(strtok_r(text, " ", &save), line->call);
	snprintf(action, sizeof(action), "%s", strtok_r(NULL, " ", &save));
	r.verdict = verdict_of(action, strcmp(action, "errno") == 0 ? strtok_r(NULL, " ", &save) : "");
	while ((w = strtok_r(NULL, " ", &save)) != NULL) {
		struct cond *c = &r.cond[r.n];

		if (strcmp(w, "and") == 0)
			continue;
		c->arg = (unsigned)(w[3] - '0');
		c->only = strcmp(strtok_r(NULL, " ", &save), "only") == 0;
		rest = strtok_r(NULL, " ", &save);
		for (char *s = NULL, *v = strtok_r(rest, ",", &s); v; v = strtok_r(NULL, ",", &s))
			c->value[c->n++] = strtoull(v, NULL, 0);
		r.n++;
	}
	return r;
}

static bool holds(const struct cond *c, const uint64_t *args)
{
	for (int i = 0; i < c->n; i++)
		if (c->only ? (args[c->arg] & ~c->value[i]) == 0 : args[c->arg] == c->value[i])
			return true;
	return false;
}

/* What the text says. A call with a matching line, else the default. */
static uint32_t expected(const struct pb_policy *p, const struct seccomp_data *d)
{
	uint32_t found = strcmp(p->name, "worker-explain") == 0 ? SECCOMP_RET_USER_NOTIF : SECCOMP_RET_KILL_PROCESS;
	int n = 0;

	if (d->arch != AUDIT_ARCH_X86_64 || (d->nr & X32))
		return SECCOMP_RET_KILL_PROCESS;
	for (uint32_t i = 0; i < p->n_lines; i++) {
		struct rule r;
		bool all = true;
		char buf[24];

		if (strcmp(p->lines[i].call, pb_syscall_name(d->nr, buf)) != 0)
			continue;
		r = read_rule(&p->lines[i]);
		for (int k = 0; k < r.n; k++)
			all &= holds(&r.cond[k], (const uint64_t *)d->args);
		if (!all)
			continue;
		if (n++ && found != r.verdict)
			fail_msg("%s: two lines of %s disagree", p->name, buf);
		found = r.verdict;
	}
	return found;
}

static void check(const struct pb_policy *p, const struct seccomp_data *d)
{
	uint32_t want = expected(p, d), got = pb_policy_eval(p, d);
	char buf[24];

	if (want != got)
		fail_msg("%s: %s(0x%llx, 0x%llx, 0x%llx, 0x%llx): 0x%x, the text says 0x%x", p->name,
			 pb_syscall_name(d->nr, buf), (unsigned long long)d->args[0], (unsigned long long)d->args[1],
			 (unsigned long long)d->args[2], (unsigned long long)d->args[3], got, want);
}

/* ---- arguments that a line may care about ---- */

static void each_variant(const struct pb_policy *p, struct seccomp_data d, unsigned arg)
{
	const uint64_t was = d.args[arg];
	const uint64_t variant[] = {was + 1, was - 1, was | HIGH, was ^ HIGH, 0, ~0ull, was << 32, 4, 7, 5};

	for (size_t i = 0; i < sizeof(variant) / sizeof(variant[0]); i++) {
		d.args[arg] = variant[i];
		check(p, &d);
	}
	for (int bit = 0; bit < 64; bit++) {
		d.args[arg] = was ^ (1ull << bit);
		check(p, &d);
	}
}

/* Every combination of the values that a line names, exact and one argument off. */
static void each_value(const struct pb_policy *p, const struct rule *r, struct seccomp_data *d, int at)
{
	if (at == r->n) {
		assert_int_equal(expected(p, d), r->verdict);
		check(p, d);
		for (unsigned arg = 0; arg < 6; arg++)
			each_variant(p, *d, arg);
		return;
	}
	for (int i = 0; i < r->cond[at].n; i++) {
		d->args[r->cond[at].arg] = r->cond[at].value[i];
		each_value(p, r, d, at + 1);
	}
}

static void test_lines(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_LOADED; i++) {
		const struct pb_policy *p = pb_policy_find(loaded[i]);

		assert_non_null(p);
		for (uint32_t k = 0; k < p->n_lines; k++) {
			struct rule r = read_rule(&p->lines[k]);
			struct seccomp_data d = {.nr = r.nr, .arch = AUDIT_ARCH_X86_64};

			/* Alternatives of one call may answer differently, but never to the same arguments. */
			each_value(p, &r, &d, 0);
		}
	}
}

static void test_numbers(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_LOADED; i++)
		for (int nr = 0; nr < NRS; nr++) {
			const struct pb_policy *p = pb_policy_find(loaded[i]);
			struct seccomp_data d = {.nr = nr, .arch = AUDIT_ARCH_X86_64};

			check(p, &d);
			for (unsigned arg = 0; arg < 6; arg++)
				d.args[arg] = HIGH;
			check(p, &d);
			d.nr = nr | X32;
			check(p, &d);
			d.nr = nr;
			d.arch = AUDIT_ARCH_I386;
			check(p, &d);
		}
}

static void test_sizes(void **state)
{
	(void)state;
	assert_in_range(pb_policy_find("worker-steady")->n_calls, 1, 24);
	assert_in_range(pb_policy_find("worker-steady-strict")->n_calls, 1, 14);
	assert_true(pb_policy_find("worker-run-strict")->n_calls < pb_policy_find("worker-run")->n_calls);
}

static uint32_t ask(const char *policy, int nr, unsigned arg, uint64_t value)
{
	struct seccomp_data d = {.nr = nr, .arch = AUDIT_ARCH_X86_64};

	d.args[arg] = value;
	if (nr == SYS_mmap)
		d.args[3] = 2;
	return pb_policy_eval(pb_policy_find(policy), &d) & SECCOMP_RET_ACTION_FULL;
}

/*
 * After loading nothing becomes executable; while loading only what is not writable. But where oneDNN compiles its kernels:
 * backend torch in profile default.
 */
static void test_no_executable_memory(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_LOADED; i++)
		for (uint64_t prot = 4; prot < 8; prot++) {
			bool linker = strncmp(loaded[i], "worker-load", 11) == 0;
			bool compiles = strlen(loaded[i]) > 6 && strcmp(loaded[i] + strlen(loaded[i]) - 6, "-torch") == 0;
			uint32_t protect = ask(loaded[i], SYS_mprotect, 2, prot);
			uint32_t map = ask(loaded[i], SYS_mmap, 2, prot);

			assert_true(linker && prot == 5 ? map == SECCOMP_RET_ALLOW : map != SECCOMP_RET_ALLOW);
			assert_true(compiles == (protect == SECCOMP_RET_ALLOW));
			assert_int_not_equal(ask(loaded[i], SYS_pkey_mprotect, 2, prot), SECCOMP_RET_ALLOW);
		}
}

/* Filters add up: a line that an earlier filter denies would be dead text. */
static void check_within(const char *inner, const char *outer)
{
	const struct pb_policy *in = pb_policy_find(inner), *out = pb_policy_find(outer);

	for (uint32_t k = 0; k < in->n_lines; k++) {
		struct rule r = read_rule(&in->lines[k]);
		struct seccomp_data d = {.nr = r.nr, .arch = AUDIT_ARCH_X86_64};

		for (int i = 0; i < 16 && r.verdict == SECCOMP_RET_ALLOW; i++) {
			uint32_t v;

			for (int c = 0; c < r.n; c++)
				d.args[r.cond[c].arg] = r.cond[c].value[i < r.cond[c].n ? i : 0];
			v = pb_policy_eval(out, &d);
			if (v != SECCOMP_RET_ALLOW && v != SECCOMP_RET_USER_NOTIF)
				fail_msg("%s allows %s, which %s does not", inner, in->lines[k].text, outer);
		}
	}
}

static void test_filters_add_up(void **state)
{
	(void)state;
	check_within("worker-run", "worker-load");
	check_within("worker-run-torch", "worker-load-torch");
	check_within("worker-steady-torch", "worker-run-torch");
	check_within("worker-run-torch-strict", "worker-load-torch-strict");
	check_within("worker-steady-torch-strict", "worker-run-torch-strict");
	check_within("worker-run-strict", "worker-load");
	check_within("worker-steady", "worker-run");
	check_within("worker-steady-strict", "worker-run-strict");
	/* What passes without a question in explain mode passes in every phase. */
	for (uint32_t k = 0; k < pb_policy_find("worker-explain")->n_lines; k++) {
		const struct pb_policy_line *l = &pb_policy_find("worker-explain")->lines[k];

		if (strcmp(l->file, "worker-explain") == 0 && strcmp(l->call, "sendmsg") != 0)
			assert_int_not_equal(ask("worker-steady", number_of(l->call), 0, 4), SECCOMP_RET_KILL_PROCESS);
	}
}

static void test_stricter(void **state)
{
	(void)state;
	assert_int_equal(pb_policy_stricter(SECCOMP_RET_ALLOW, SECCOMP_RET_KILL_PROCESS), SECCOMP_RET_KILL_PROCESS);
	assert_int_equal(pb_policy_stricter(SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_USER_NOTIF), SECCOMP_RET_KILL_PROCESS);
	assert_int_equal(pb_policy_stricter(SECCOMP_RET_ALLOW, SECCOMP_RET_USER_NOTIF), SECCOMP_RET_USER_NOTIF);
	assert_int_equal(pb_policy_stricter(SECCOMP_RET_ERRNO | 1, SECCOMP_RET_USER_NOTIF), SECCOMP_RET_ERRNO | 1);
}

static void test_explain(void **state)
{
	struct seccomp_data d = {.nr = SYS_openat, .arch = AUDIT_ARCH_X86_64, .args = {1, 2, 3}};
	char text[400];

	(void)state;
	pb_confine_explain(&d, "worker-run", text, sizeof(text));
	assert_string_equal(text, "openat(0x1, 0x2, 0x3, 0x0, 0x0, 0x0): no line of worker-run.policy names it");
	d.nr = SYS_mprotect;
	pb_confine_explain(&d, "worker-run", text, sizeof(text));
	assert_non_null(strstr(text, "of worker-run.policy allows only other arguments: mprotect"));
	d.nr = SYS_tgkill;
	pb_confine_explain(&d, "worker-run", text, sizeof(text));
	assert_non_null(strstr(text, "of base.policy"));
	d.arch = AUDIT_ARCH_I386;
	pb_confine_explain(&d, "worker-run", text, sizeof(text));
	assert_non_null(strstr(text, "another architecture"));
	d.arch = AUDIT_ARCH_X86_64;
	d.nr = 9999;
	pb_confine_explain(&d, "worker-run", text, 40);
	assert_int_equal(strlen(text), 39);
}

/* ---- the kernel's own verdict ---- */

struct asked {
	long plain[NRS], high[NRS], x32[NRS], i386[NRS];
	volatile bool done;
	struct sock_filter code[256];
	size_t n_code;
};

static long raw(long nr, long arg)
{
	register long a4 __asm__("r10") = arg;
	register long a5 __asm__("r8") = arg;
	register long a6 __asm__("r9") = arg;
	long r;

	__asm__ volatile("syscall"
			 : "=a"(r)
			 : "a"(nr), "D"(arg), "S"(arg), "d"(arg), "r"(a4), "r"(a5), "r"(a6)
			 : "rcx", "r11", "memory");
	return r;
}

static long raw_i386(long nr)
{
	long r;

	__asm__ volatile("int $0x80" : "=a"(r) : "a"(nr), "b"(0), "c"(0), "d"(0), "S"(0), "D"(0)
			 : "r8", "r9", "r10", "r11", "memory");
	return r;
}

/* uretprobe and uprobe are for the kernel's own trampolines: since Linux 6.14 no filter sees them, and anybody else who
 * makes them gets SIGILL. */
static bool is_exempt(int nr)
{
	return nr == 335 || nr == 336;
}

/* With a filter that answers every question with a number, and executes nothing. */
static void ask_kernel(void *arg)
{
	struct asked *a = arg;
	struct sock_fprog prog = {.len = (unsigned short)a->n_code, .filter = a->code};

	REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	REQUIRE(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog) == 0);
	for (int nr = 0; nr < NRS; nr++) {
		if (is_exempt(nr))
			continue;
		a->plain[nr] = raw(nr, 0);
		a->high[nr] = raw(nr, (long)HIGH);
		a->x32[nr] = raw(nr | X32, 0);
		a->i386[nr] = raw_i386(nr);
	}
	a->done = true;
	__builtin_trap(); /* there is no call left to end with */
}

/* Verdicts as error numbers; errno verdicts keep theirs, from 1000 on. */
static uint32_t as_number(uint32_t verdict)
{
	switch (verdict & SECCOMP_RET_ACTION_FULL) {
	case SECCOMP_RET_ALLOW:
		return 2001;
	case SECCOMP_RET_USER_NOTIF:
		return 2002;
	case SECCOMP_RET_ERRNO:
		return 1000 + (verdict & SECCOMP_RET_DATA);
	default:
		return 2003;
	}
}

static long kernel_says(const struct pb_policy *p, int nr, uint32_t arch, uint64_t arg)
{
	struct seccomp_data d = {.nr = nr, .arch = arch, .args = {arg, arg, arg, arg, arg, arg}};

	return -(long)as_number(pb_policy_eval(p, &d));
}

static void test_kernel_agrees(void **state)
{
	struct asked *a = mmap(NULL, sizeof(*a), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	(void)state;
	assert_true(a != MAP_FAILED);
	for (size_t i = 0; i < N_LOADED; i++) {
		const struct pb_policy *p = pb_policy_find(loaded[i]);

		assert_true(p->n_code <= 256);
		memcpy(a->code, p->code, p->n_code * sizeof(a->code[0]));
		a->n_code = p->n_code;
		for (size_t k = 0; k < a->n_code; k++)
			if (a->code[k].code == (BPF_RET | BPF_K))
				a->code[k].k = SECCOMP_RET_ERRNO | as_number(a->code[k].k);
		a->done = false;
		assert_true(killed_by(status_of(ask_kernel, a), SIGILL));
		assert_true(a->done);
		for (int nr = 0; nr < NRS; nr++) {
			if (is_exempt(nr))
				continue;
			assert_int_equal(a->plain[nr], kernel_says(p, nr, AUDIT_ARCH_X86_64, 0));
			assert_int_equal(a->high[nr], kernel_says(p, nr, AUDIT_ARCH_X86_64, HIGH));
			assert_int_equal(a->x32[nr], kernel_says(p, nr | X32, AUDIT_ARCH_X86_64, 0));
			assert_int_equal(a->i386[nr], kernel_says(p, nr, AUDIT_ARCH_I386, 0));
		}
	}
	munmap(a, sizeof(*a));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines),		  cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_sizes),		  cmocka_unit_test(test_no_executable_memory),
		cmocka_unit_test(test_filters_add_up),	  cmocka_unit_test(test_stricter),
		cmocka_unit_test(test_explain),		  cmocka_unit_test(test_kernel_agrees),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
