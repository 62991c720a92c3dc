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
#include "tests/lib/policy_rules.h"
#include "tests/unit/confine/child.h"

#define HIGH 0xdeadbeef00000000ull
#define X32 RULE_X32
#define NRS 601

#define GOLDEN "tests/unit/confine/policy_verdicts.txt"

/* Those that are loaded into a process: all but what is only included. */
static bool is_loaded(const struct pb_policy *p)
{
	return strcmp(p->name, "base") != 0;
}

#define EACH_POLICY(p)                                                                                                 \
	for (const struct pb_policy *p = pb_policies; p < pb_policies + pb_n_policies; p++)                            \
		if (is_loaded(p))

static void check(const struct pb_policy *p, const struct seccomp_data *d)
{
	uint32_t want = rule_expected(p, d), got = pb_policy_eval(p, d);
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
		assert_int_equal(rule_expected(p, d), r->verdict);
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
	EACH_POLICY (p) {
		for (uint32_t k = 0; k < p->n_lines; k++) {
			struct rule r = rule_read(&p->lines[k]);
			struct seccomp_data d = {.nr = r.nr, .arch = AUDIT_ARCH_X86_64};

			/* Alternatives of one call may answer differently, but never to the same arguments. */
			each_value(p, &r, &d, 0);
		}
	}
}

static void test_numbers(void **state)
{
	(void)state;
	EACH_POLICY (p)
		for (int nr = 0; nr < NRS; nr++) {
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
 * backend torch in profile default. An ops process with PyTorch does without.
 */
static void test_no_executable_memory(void **state)
{
	(void)state;
	EACH_POLICY (p)
		for (uint64_t prot = 4; prot < 8; prot++) {
			bool linker = strncmp(p->name, "worker-load", 11) == 0 || strncmp(p->name, "ops-load", 8) == 0;
			bool compiles = strncmp(p->name, "worker-", 7) == 0 && strcmp(p->name + strlen(p->name) - 6, "-torch") == 0;
			uint32_t protect = ask(p->name, SYS_mprotect, 2, prot);
			uint32_t map = ask(p->name, SYS_mmap, 2, prot);

			if (strcmp(p->name, "spawner") == 0)
				continue; /* programs start under it */

			assert_true(linker && prot == 5 ? map == SECCOMP_RET_ALLOW : map != SECCOMP_RET_ALLOW);
			assert_true(compiles == (protect == SECCOMP_RET_ALLOW));
			assert_int_not_equal(ask(p->name, SYS_pkey_mprotect, 2, prot), SECCOMP_RET_ALLOW);
		}
}

/* Filters add up: a line that an earlier filter denies would be dead text. */
static void check_within(const char *inner, const char *outer)
{
	const struct pb_policy *in = pb_policy_find(inner), *out = pb_policy_find(outer);

	for (uint32_t k = 0; k < in->n_lines; k++) {
		struct rule r = rule_read(&in->lines[k]);
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
	check_within("ops", "ops-load");
	check_within("ops-torch", "ops-load-torch");
	EACH_POLICY (p)
		if (strcmp(p->name, "broker") != 0 && strcmp(p->name, "worker-explain") != 0)
			check_within(p->name, "spawner");
	/* What passes without a question in explain mode passes in every phase. */
	for (uint32_t k = 0; k < pb_policy_find("worker-explain")->n_lines; k++) {
		const struct pb_policy_line *l = &pb_policy_find("worker-explain")->lines[k];

		if (strcmp(l->file, "worker-explain") == 0 && strcmp(l->call, "sendmsg") != 0)
			assert_int_not_equal(ask("worker-steady", rule_read(l).nr, 0, 4), SECCOMP_RET_KILL_PROCESS);
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

/* ---- the table that was looked at by people ---- */

enum way { X86_64, X86_64_HIGH, X32_PLAIN, X32_HIGH, I386, I386_HIGH, N_WAYS };
static const char *const way_name[] = {"x86_64", "x86_64 high", "x32", "x32 high", "i386", "i386 high"};

static struct seccomp_data data_of(enum way way, int nr)
{
	const uint64_t a = way == X86_64_HIGH || way == X32_HIGH || way == I386_HIGH ? HIGH : 0;

	return (struct seccomp_data){.nr = way == X32_PLAIN || way == X32_HIGH ? nr | X32 : nr,
				     .arch = way < I386 ? AUDIT_ARCH_X86_64 : AUDIT_ARCH_I386,
				     .args = {a, a, a, a, a, a}};
}

static void put_verdict(FILE *f, uint32_t v)
{
	const uint32_t action = v & SECCOMP_RET_ACTION_FULL;

	if (action == SECCOMP_RET_ERRNO)
		fprintf(f, "errno %u", v & SECCOMP_RET_DATA);
	else
		fputs(action == SECCOMP_RET_ALLOW	 ? "allow"
		      : action == SECCOMP_RET_USER_NOTIF ? "notify"
		      : action == SECCOMP_RET_TRACE	 ? "refuse"
							 : "kill",
		      f);
}

#define VERDICTS_MAX 16
#define LINE_BYTES 4096

/* What most numbers get, then a line with the calls for every other answer, in order of the numbers. */
static void put_table(FILE *f, const struct pb_policy *p, enum way way)
{
	uint32_t verdict[VERDICTS_MAX] = {0};
	int count[VERDICTS_MAX], n = 0, most = 0;
	char buf[24];

	for (int nr = 0; nr < NRS; nr++) {
		struct seccomp_data d = data_of(way, nr);
		uint32_t v = pb_policy_eval(p, &d);
		int i;

		for (i = 0; i < n && verdict[i] != v; i++)
			;
		assert_true(i < VERDICTS_MAX);
		if (i == n) {
			verdict[n] = v;
			count[n++] = 0;
		}
		if (++count[i] > count[most])
			most = i;
	}
	fprintf(f, "%s, %s: ", p->name, way_name[way]);
	put_verdict(f, verdict[most]);
	for (int i = 0; i < n; i++) {
		if (i == most)
			continue;
		fputs("\n\t", f);
		put_verdict(f, verdict[i]);
		fputs(": ", f);
		for (int nr = 0; nr < NRS; nr++) {
			struct seccomp_data d = data_of(way, nr);

			if (pb_policy_eval(p, &d) == verdict[i])
				fprintf(f, " %s", pb_syscall_name(nr, buf));
		}
	}
	fputc('\n', f);
}

/* Sets *ret_line to the number of the first line that differs, 0: none. */
static bool same_as_file(const char *path, const char *text, int *ret_line, char buf[LINE_BYTES])
{
	FILE *f = fopen(path, "re");

	*ret_line = 1;
	for (; f && fgets(buf, LINE_BYTES, f); ++*ret_line) {
		size_t n = strlen(buf);

		if (strncmp(buf, text, n) != 0)
			break;
		text += n;
	}
	if (f && feof(f)) {
		fclose(f);
		buf[0] = '\0';
		return *text == '\0';
	}
	if (f)
		fclose(f);
	return false;
}

static void test_verdicts_as_committed(void **state)
{
	char *text = NULL, line[LINE_BYTES];
	size_t bytes = 0;
	FILE *f = open_memstream(&text, &bytes);
	int at;

	(void)state;
	EACH_POLICY (p)
		for (enum way way = 0; way < N_WAYS; way++)
			put_table(f, p, way);
	fclose(f);
	if (getenv("PT2BOX_WRITE_VERDICTS")) {
		f = fopen(GOLDEN, "we");
		assert_non_null(f);
		fputs(text, f);
		fclose(f);
	}
	if (!same_as_file(GOLDEN, text, &at, line))
		fail_msg(GOLDEN ", line %d (\"%.60s\") is not what the policies say now. If that is meant: "
				"PT2BOX_WRITE_VERDICTS=1 writes it, and the difference is for review", at, line);
	free(text);
}

/* ---- the kernel's own verdict ---- */

#define CASES_MAX 400000

struct one {
	int nr;
	int32_t got;
	uint64_t args[6];
};

struct asked {
	long got[N_WAYS][NRS];
	volatile bool done;
	struct sock_filter code[512];
	size_t n_code;
	uint32_t n_cases;
	struct one cases[CASES_MAX];
};

static long raw(long nr, const uint64_t *a)
{
	/* cppcheck-suppress constStatement */
	register long a4 __asm__("r10") = (long)a[3];
	/* cppcheck-suppress constStatement */
	register long a5 __asm__("r8") = (long)a[4];
	/* cppcheck-suppress constStatement */
	register long a6 __asm__("r9") = (long)a[5];
	long r;

	__asm__ volatile("syscall"
			 : "=a"(r)
			 : "a"(nr), "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(a4), "r"(a5), "r"(a6)
			 : "rcx", "r11", "memory");
	return r;
}

static long raw_i386(long nr, long arg)
{
	long r;

	__asm__ volatile("int $0x80" : "=a"(r) : "a"(nr), "b"(arg), "c"(arg), "d"(arg), "S"(arg), "D"(arg)
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
	for (int nr = 0; nr < NRS; nr++)
		for (enum way way = 0; way < N_WAYS && !is_exempt(nr); way++) {
			struct seccomp_data d = data_of(way, nr);

			a->got[way][nr] = way < I386 ? raw(d.nr, (const uint64_t *)d.args) :
						       raw_i386(d.nr, (long)d.args[0]);
		}
	for (uint32_t i = 0; i < a->n_cases; i++)
		a->cases[i].got = (int32_t)raw(a->cases[i].nr, a->cases[i].args);
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
	case SECCOMP_RET_TRACE:
		return 2004;
	case SECCOMP_RET_ERRNO:
		return 1000 + (verdict & SECCOMP_RET_DATA);
	default:
		return 2003;
	}
}

static void add_case(struct asked *a, const struct seccomp_data *d)
{
	assert_true(a->n_cases < CASES_MAX);
	a->cases[a->n_cases].nr = d->nr;
	memcpy(a->cases[a->n_cases++].args, d->args, sizeof(d->args));
}

/* The line as it stands, then one argument off: by one, by a bit of the high half, by every single bit. */
static void add_cases(struct asked *a, const struct rule *r, struct seccomp_data *d, int at)
{
	if (at < r->n) {
		for (int i = 0; i < r->cond[at].n; i++) {
			d->args[r->cond[at].arg] = r->cond[at].value[i];
			add_cases(a, r, d, at + 1);
		}
		return;
	}
	add_case(a, d);
	for (int c = 0; c < r->n; c++) {
		const unsigned arg = r->cond[c].arg;
		const uint64_t was = d->args[arg];

		d->args[arg] = was + 1;
		add_case(a, d);
		d->args[arg] = was | HIGH;
		add_case(a, d);
		for (int bit = 0; bit < 64; bit++) {
			d->args[arg] = was ^ (1ull << bit);
			add_case(a, d);
		}
		d->args[arg] = was;
	}
}

static void check_cases(const struct pb_policy *p, const struct asked *a)
{
	for (uint32_t i = 0; i < a->n_cases; i++) {
		struct seccomp_data d = {.nr = a->cases[i].nr, .arch = AUDIT_ARCH_X86_64};
		uint32_t want;
		char buf[24];

		memcpy(d.args, a->cases[i].args, sizeof(d.args));
		want = rule_expected(p, &d);
		if (a->cases[i].got != -(int32_t)as_number(want))
			fail_msg("%s: the kernel says %d of %s(0x%llx, 0x%llx, 0x%llx, 0x%llx), the text says %u", p->name,
				 -a->cases[i].got, pb_syscall_name(d.nr, buf), (unsigned long long)d.args[0],
				 (unsigned long long)d.args[1], (unsigned long long)d.args[2],
				 (unsigned long long)d.args[3], as_number(want));
	}
}

static void test_kernel_agrees(void **state)
{
	struct asked *a = mmap(NULL, sizeof(*a), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint32_t total = 0;

	(void)state;
	assert_true(a != MAP_FAILED);
	EACH_POLICY (p) {
		assert_true(p->n_code <= sizeof(a->code) / sizeof(a->code[0]));
		memcpy(a->code, p->code, p->n_code * sizeof(a->code[0]));
		a->n_code = p->n_code;
		for (size_t k = 0; k < a->n_code; k++)
			if (a->code[k].code == (BPF_RET | BPF_K))
				a->code[k].k = SECCOMP_RET_ERRNO | as_number(a->code[k].k);
		a->n_cases = 0;
		for (uint32_t k = 0; k < p->n_lines; k++) {
			struct rule r = rule_read(&p->lines[k]);
			struct seccomp_data d = {.nr = r.nr, .arch = AUDIT_ARCH_X86_64};

			add_cases(a, &r, &d, 0);
		}
		total += a->n_cases;
		a->done = false;
		assert_true(killed_by(status_of(ask_kernel, a), SIGILL));
		assert_true(a->done);
		for (int nr = 0; nr < NRS; nr++)
			for (enum way way = 0; way < N_WAYS && !is_exempt(nr); way++) {
				struct seccomp_data d = data_of(way, nr);

				assert_int_equal(a->got[way][nr], -(long)as_number(pb_policy_eval(p, &d)));
			}
		check_cases(p, a);
	}
	print_message("%u cases of lines\n", total);
	munmap(a, sizeof(*a));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines),		  cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_sizes),		  cmocka_unit_test(test_no_executable_memory),
		cmocka_unit_test(test_filters_add_up),	  cmocka_unit_test(test_stricter),
		cmocka_unit_test(test_explain),		  cmocka_unit_test(test_kernel_agrees),
		cmocka_unit_test(test_verdicts_as_committed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
