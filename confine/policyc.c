/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Build tool: compiles the files of policies/ to BPF with libseccomp and writes C.
 *
 *	default ACTION                          what happens to calls with no line (kill or notify)
 *	include NAME                            the lines of another policy
 *	CALL ACTION [CONDITION] | reason        one line a call; several lines for one call are alternatives
 *
 *	ACTION     allow, kill, notify, errno NAME, refuse
 *	           refuse: ENOSYS, unless another filter of the process kills or notifies (the kernel asks a tracer; there is none)
 *	CONDITION  argN == V, or argN in V,V,..., or argN only BITS (no other bit may be set); joined by "and"
 *
 * Values are compared over all 64 bits: garbage in the high half never matches, so an allow line fails closed. Numbers of
 * other architectures and x32 kill the process.
 */
#include <ctype.h>
#include <errno.h>
#include <seccomp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define VALUES_MAX 16
#define LINES_MAX 512
#define CALLS_MAX 256
#define CALL_BYTES 32
#define DEPTH_MAX 8

struct cond {
	unsigned arg;
	bool only; /* no bit outside values[0] */
	uint64_t values[VALUES_MAX];
	int n;
};

struct policy {
	char name[64];
	char file[512];
	scmp_filter_ctx ctx;
	uint32_t default_action;
	char *lines[LINES_MAX];
	int line_no[LINES_MAX];
	char calls[LINES_MAX][CALL_BYTES];
	char from[LINES_MAX][64]; /* name of the file that the line stands in */
	int n_lines;
	char allowed[CALLS_MAX][CALL_BYTES];
	int n_allowed;
};

static const char *at_file;
static int at_line;

static void die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
static void die(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "%s:%d: ", at_file, at_line);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

/* "policies/base.policy" is "base". */
static void policy_name(char dst[64], const char *path)
{
	const char *base = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;

	snprintf(dst, 64, "%.*s", (int)strcspn(base, "."), base);
}

static char *word(char **p)
{
	char *w;

	while (isspace((unsigned char)**p))
		(*p)++;
	w = *p;
	while (**p && !isspace((unsigned char)**p))
		(*p)++;
	if (**p)
		*(*p)++ = '\0';
	return w;
}

static uint32_t action_of(const char *w, char **rest)
{
	static const struct {
		const char *name;
		int value;
	} errs[] = {{"EPERM", EPERM}, {"ENOSYS", ENOSYS}, {"EACCES", EACCES}, {"ENOENT", ENOENT}, {"EINVAL", EINVAL}};

	if (strcmp(w, "allow") == 0)
		return SCMP_ACT_ALLOW;
	if (strcmp(w, "kill") == 0)
		return SCMP_ACT_KILL_PROCESS;
	if (strcmp(w, "notify") == 0)
		return SCMP_ACT_NOTIFY;
	if (strcmp(w, "refuse") == 0)
		return SCMP_ACT_TRACE(0);
	if (strcmp(w, "errno") == 0) {
		char *name = word(rest);

		for (size_t i = 0; i < sizeof(errs) / sizeof(errs[0]); i++)
			if (strcmp(errs[i].name, name) == 0)
				return SCMP_ACT_ERRNO((uint32_t)errs[i].value);
	}
	die("unknown action %s", w);
}

static void parse_values(char *list, struct cond *c)
{
	char *save = NULL;

	for (char *v = strtok_r(list, ",", &save); v; v = strtok_r(NULL, ",", &save)) {
		char *end;

		if (c->n == VALUES_MAX)
			die("too many values");
		c->values[c->n++] = strtoull(v, &end, 0);
		if (*end)
			die("not a number: %s", v);
	}
}

static int parse_conditions(char *p, struct cond *conds)
{
	int n = 0;

	for (char *w = word(&p); *w; w = word(&p)) {
		char *op;

		if (strcmp(w, "and") == 0)
			continue;
		if (n == 6 || strncmp(w, "arg", 3) != 0 || w[3] < '0' || w[3] > '5' || w[4])
			die("bad condition at %s", w);
		conds[n] = (struct cond){.arg = (unsigned)(w[3] - '0')};
		op = word(&p);
		conds[n].only = strcmp(op, "only") == 0;
		if (!conds[n].only && strcmp(op, "==") != 0 && strcmp(op, "in") != 0)
			die("bad operator %s", op);
		parse_values(word(&p), &conds[n]);
		if (conds[n].n == 0)
			die("a condition without a value");
		n++;
	}
	return n;
}

/* One rule for every combination of values. */
static void add_rules(struct policy *pol, uint32_t action, int nr, const struct cond *conds, int n, int at,
		      struct scmp_arg_cmp *cmp)
{
	if (at == n) {
		int r;

		/* libseccomp refuses a rule that equals the default; there is nothing to add then. */
		if (action == pol->default_action)
			return;
		r = seccomp_rule_add_array(pol->ctx, action, nr, (unsigned)n, cmp);
		if (r && r != -EEXIST)
			die("libseccomp: %s", strerror(-r));
		return;
	}
	for (int i = 0; i < conds[at].n; i++) {
		if (conds[at].only)
			cmp[at] = SCMP_CMP64(conds[at].arg, SCMP_CMP_MASKED_EQ, ~conds[at].values[i], 0);
		else
			cmp[at] = SCMP_CMP64(conds[at].arg, SCMP_CMP_EQ, conds[at].values[i]);
		add_rules(pol, action, nr, conds, n, at + 1, cmp);
	}
}

static void note_allowed(struct policy *pol, const char *call)
{
	for (int i = 0; i < pol->n_allowed; i++)
		if (strcmp(pol->allowed[i], call) == 0)
			return;
	if (pol->n_allowed == CALLS_MAX)
		die("too many calls");
	snprintf(pol->allowed[pol->n_allowed++], CALL_BYTES, "%s", call);
}

/* A copy for people, without the blanks that align a column. */
static char *one_spaced(const char *text)
{
	char *copy = strdup(text), *to = copy;

	for (; *text && *text != '\n'; text++)
		if (*text != ' ' || text[1] != ' ')
			*to++ = *text;
	*to = '\0';
	return copy;
}

static void add_line(struct policy *pol, char *text)
{
	struct scmp_arg_cmp cmp[6];
	struct cond conds[6];
	char *reason = strchr(text, '|'), *p = text, *call;
	uint32_t action;
	int nr;

	if (!reason || strspn(reason + 1, " \t\n") == strlen(reason + 1))
		die("a line needs a reason: %s", text);
	if (pol->n_lines == LINES_MAX)
		die("too many lines");
	pol->lines[pol->n_lines] = one_spaced(text);
	pol->line_no[pol->n_lines] = at_line;
	*reason = '\0';
	call = word(&p);
	policy_name(pol->from[pol->n_lines], at_file);
	snprintf(pol->calls[pol->n_lines++], CALL_BYTES, "%s", call);
	nr = seccomp_syscall_resolve_name(call);
	if (nr == __NR_SCMP_ERROR) {
		/* Newer than this libseccomp. */
		if (strcmp(call, "futex_waitv") == 0)
			nr = 449;
		else
			die("unknown call %s", call);
	}
	action = action_of(word(&p), &p);
	if (action == SCMP_ACT_ALLOW)
		note_allowed(pol, call);
	add_rules(pol, action, nr, conds, parse_conditions(p, conds), 0, cmp);
}

static void read_policy(struct policy *pol, const char *path, bool top);

static void include(struct policy *pol, const char *from, const char *name)
{
	char path[600];
	const char *slash = strrchr(from, '/');
	const char *file = at_file;
	int line = at_line;

	snprintf(path, sizeof(path), "%.*s/%s.policy", (int)(slash - from), from, name);
	read_policy(pol, strdup(path), false);
	at_file = file;
	at_line = line;
}

static void set_default(struct policy *pol, uint32_t action)
{
	pol->default_action = action;
	pol->ctx = seccomp_init(action);
	if (!pol->ctx)
		die("libseccomp does not start");
	seccomp_attr_set(pol->ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	seccomp_attr_set(pol->ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
}

static void read_policy(struct policy *pol, const char *path, bool top)
{
	FILE *f = fopen(path, "r");
	char buf[1024];

	at_file = path;
	at_line = 0;
	if (!f)
		die("cannot be read");
	while (fgets(buf, sizeof(buf), f)) {
		char *p = buf + strspn(buf, " \t");

		at_line++;
		if (*p == '#' || *p == '\n' || !*p)
			continue;
		if (strncmp(p, "default ", 8) == 0) {
			char *rest = p + 8, *w = word(&rest);

			if (top)
				set_default(pol, action_of(w, &rest));
			continue;
		}
		if (!pol->ctx)
			die("the default comes first");
		if (strncmp(p, "include ", 8) == 0) {
			char *rest = p + 8;

			include(pol, path, word(&rest));
			continue;
		}
		add_line(pol, p);
	}
	fclose(f);
}

static void put_c_string(const char *s)
{
	putchar('"');
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			putchar('\\');
		putchar(*s == '\t' ? ' ' : *s);
	}
	putchar('"');
}

static size_t put_code(struct policy *pol, int index)
{
	int fd = memfd_create("bpf", 0);
	struct {
		uint16_t code;
		uint8_t jt, jf;
		uint32_t k;
	} insn;
	size_t n = 0;

	if (fd < 0 || seccomp_export_bpf(pol->ctx, fd) != 0)
		die("libseccomp gives no code");
	lseek(fd, 0, SEEK_SET);
	printf("static const struct sock_filter code_%d[] = {\n", index);
	while (read(fd, &insn, sizeof(insn)) == sizeof(insn)) {
		printf("\t{0x%x, %u, %u, 0x%x},\n", insn.code, insn.jt, insn.jf, insn.k);
		n++;
	}
	printf("};\n");
	close(fd);
	return n;
}

static void put_policy(struct policy *pol, int index, size_t *ret_code)
{
	*ret_code = put_code(pol, index);
	printf("static const struct pb_policy_line lines_%d[] = {\n", index);
	for (int i = 0; i < pol->n_lines; i++) {
		printf("\t{\"%s\", \"%s\", %d, ", pol->calls[i], pol->from[i], pol->line_no[i]);
		put_c_string(pol->lines[i]);
		printf("},\n");
	}
	printf("};\n");
}

static void put_syscalls(void)
{
	printf("const struct pb_syscall_row pb_syscalls[] = {\n");
	for (int nr = 0; nr < 512; nr++) {
		char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_X86_64, nr);

		if (name)
			printf("\t{%d, \"%s\"},\n", nr, name);
		free(name);
	}
	printf("};\nconst size_t pb_n_syscalls = sizeof(pb_syscalls) / sizeof(pb_syscalls[0]);\n");
}

int main(int argc, char **argv)
{
	struct policy *pol = calloc((size_t)argc, sizeof(*pol));
	size_t *code = calloc((size_t)argc, sizeof(*code));

	if (!pol || !code)
		return 1;
	printf("/* Made from policies/ by policyc. */\n#include \"confine/policy.h\"\n\n");
	for (int i = 1; i < argc; i++) {
		policy_name(pol[i].name, argv[i]);
		read_policy(&pol[i], argv[i], true);
		put_policy(&pol[i], i, &code[i]);
	}
	printf("const struct pb_policy pb_policies[] = {\n");
	for (int i = 1; i < argc; i++)
		printf("\t{\"%s\", code_%d, %zu, lines_%d, %d, %d},\n", pol[i].name, i, code[i], i, pol[i].n_lines,
		       pol[i].n_allowed);
	printf("};\nconst size_t pb_n_policies = %d;\n", argc - 1);
	put_syscalls();
	return 0;
}
