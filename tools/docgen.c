/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Build tool: writes the generated pages of docs/ from the tables that the code is expanded from.
 *
 *	docgen protocol		docs/PROTOCOL.md from ipc/messages.def
 *	docgen ops		docs/OPS.md from runtime/shims.def and runtime/proxied.def
 *	docgen attacks|matrix	the tables of docs/SECURITY.md from tests/attacks.def and tests/matrix.def
 *
 * Links nothing of ours, so that a page can be made before anything else compiles.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* ---- ipc/messages.def ---- */

struct field {
	const char *name, *type;
	uint64_t max;
	const char *doc;
};

struct message {
	const char *name;
	int id;
	const char *from, *to, *state;
	int min_fds, max_fds;
	const char *doc;
	const struct field *fields; /* ends with a NULL name */
};

#define MSG(name, id, from, to, state, min_fds, max_fds, doc)                                      \
	static const struct field fields_##name[] = {
#define FIELD(msg, type, name, max, doc) {#name, #type, max, doc},
#define END(name)                                                                                  \
	{                                                                                          \
		NULL, NULL, 0, NULL                                                                \
	}                                                                                          \
	}                                                                                          \
	;
#include "ipc/messages.def"
#undef MSG
#undef FIELD
#undef END

static const struct message messages[] = {
#define MSG(name, id, from, to, state, min_fds, max_fds, doc)                                      \
	{#name, id, #from, #to, #state, min_fds, max_fds, doc, fields_##name},
#define FIELD(msg, type, name, max, doc)
#define END(name)
#include "ipc/messages.def"
#undef MSG
#undef FIELD
#undef END
};
static const size_t n_messages = sizeof(messages) / sizeof(messages[0]);

static void print_lower(const char *s)
{
	for (; *s; s++)
		putchar(*s >= 'A' && *s <= 'Z' ? *s - 'A' + 'a' : *s);
}

/* In a table cell a bar would end the cell. */
static void print_cell(const char *s)
{
	for (; *s; s++) {
		if (*s == '|')
			putchar('\\');
		putchar(*s);
	}
}

static void print_max(const struct field *f)
{
	const bool text = !strcmp(f->type, "str") || !strcmp(f->type, "bin");

	if (f->max == UINT64_MAX)
		printf("2^64 - 1");
	else if (f->max == INT64_MAX)
		printf("2^63 - 1");
	else if (f->max >= 1u << 20 && (f->max & (f->max + 1)) == 0)
		printf("2^%d - 1", __builtin_popcountll(f->max));
	else if (f->max >= 1u << 20 && (f->max & (f->max - 1)) == 0)
		printf("2^%d", __builtin_ctzll(f->max));
	else
		printf("%s%" PRIu64 "%s", !strcmp(f->type, "i64") ? "±" : "", f->max,
		       text ? " bytes" : "");
}

static void print_fds(const struct message *m)
{
	if (m->min_fds == m->max_fds)
		printf("%d", m->min_fds);
	else
		printf("%d to %d", m->min_fds, m->max_fds);
}

static bool same_way(const struct message *a, const struct message *b)
{
	return !strcmp(a->from, b->from) && !strcmp(a->to, b->to);
}

static void print_message(const struct message *m)
{
	printf("### %s (%d)\n\n%s\n\nState: ", m->name, m->id, m->doc);
	print_lower(m->state);
	printf(". Descriptors: ");
	print_fds(m);
	printf(".\n\n");
	if (!m->fields->name)
		return;
	printf("| # | field | type | maximum | meaning |\n| --- | --- | --- | --- | --- |\n");
	for (const struct field *f = m->fields; f->name; f++) {
		printf("| %d | `%s` | %s | ", (int)(f - m->fields) + 1, f->name, f->type);
		print_max(f);
		printf(" | ");
		print_cell(f->doc);
		printf(" |\n");
	}
	putchar('\n');
}

static void print_protocol(void)
{
	printf("# Control messages\n\n"
	       "Generated from `ipc/messages.def` by `make docs`; do not edit.\n\n"
	       "A message is one msgpack array `[id, field, ...]`, all fields in the order below, in one "
	       "packet of a `SOCK_SEQPACKET`\nUnix socket, with its descriptors attached. The receiver "
	       "checks who may send it, in which state, with how many\ndescriptors, every type and "
	       "maximum, and that no byte is left over, before any of it is used. A message that fails "
	       "a check\ncosts its sender the connection.\n\n"
	       "Types: `u64` and `i64` are msgpack integers (the maximum of `i64` is a magnitude), `str` "
	       "is text without NUL, `bin` is bytes.\nStates: `new` until `hello`, `ready` after it, "
	       "`any` for processes of pt2box itself. Ids are never reused.\n\n");
	for (size_t i = 0; i < n_messages; i++) {
		if (i == 0 || !same_way(&messages[i], &messages[i - 1])) {
			printf("## ");
			print_lower(messages[i].from);
			printf(" to ");
			print_lower(messages[i].to);
			printf("\n\n");
		}
		print_message(&messages[i]);
	}
}

/* ---- runtime/shims.def ---- */

struct shim {
	const char *name, *state, *op, *note;
};

static const struct shim shims[] = {
#if __has_include("runtime/shims.def")
#define SHIM(name, state, op, note) {#name, #state, op, note},
#include "runtime/shims.def"
#undef SHIM
#endif
	{NULL, NULL, NULL, NULL},
};

static unsigned count_state(const char *state)
{
	unsigned n = 0;

	for (const struct shim *s = shims; s->name; s++)
		n += !strcmp(s->state, state);
	return n;
}

static void print_state(const char *state, const char *title, const char *meaning)
{
	if (!count_state(state))
		return;
	printf("## %s (%u)\n\n%s\n\n", title, count_state(state), meaning);
	printf("| function | operator | note |\n| --- | --- | --- |\n");
	for (const struct shim *s = shims; s->name; s++) {
		if (strcmp(s->state, state))
			continue;
		printf("| `%s` | ", s->name);
		print_cell(s->op);
		printf(" | ");
		print_cell(s->note);
		printf(" |\n");
	}
	putchar('\n');
}

/* ---- runtime/proxied.def ---- */

static const struct {
	const char *target, *library, *schema;
} named[] = {
#if __has_include("runtime/proxied.def")
#define PROXIED(function, target, library, schema) {target, #library, schema},
#include "runtime/proxied.def"
#undef PROXIED
#endif
	{NULL, NULL, NULL},
};

static void print_named(void)
{
	unsigned n = 0;

	while (named[n].target)
		n++;
	printf("## By name (%u)\n\nOperators that have no C function. Models call them through "
	       "`aoti_torch_proxy_executor_call_function`; these are native.\nThose with LAPACK load it "
	       "(Debian: liblapacke) into the workers of the packages that need it. Any other is refused by its "
	       "name.\n\n", n);
	printf("| operator | library | schema |\n| --- | --- | --- |\n");
	for (n = 0; named[n].target; n++) {
		printf("| `%s` | %s | ", named[n].target, !strcmp(named[n].library, "NONE") ? "" : named[n].library);
		putchar('`');
		print_cell(named[n].schema);
		printf("` |\n");
	}
	putchar('\n');
}

static void print_ops(void)
{
	printf("# Functions of the AOTInductor C ABI\n\n"
	       "Generated from `runtime/shims.def` and `runtime/proxied.def` by `make docs`; do not edit. "
	       "`pt2box inspect PACKAGE` says which of them a package needs.\n\n");
	print_state("NATIVE", "Native", "Computed by pt2box's own runtime.");
	print_named();
	print_state("PROXIED", "Proxied", "Handed to the ops process.");
	print_state("ABSENT", "Absent",
		    "A package that imports one of these is refused when it is loaded, by its name.");
}

/* ---- tests/attacks.def, tests/matrix.def ---- */

static const struct attack {
	const char *id, *act, *sees, *first, *second;
} attacks[] = {
#define ATTACK(...) {__VA_ARGS__},
#define MODEL(...)
#define SHOWN(...)
#define WAITS(...)
#include "tests/attacks.def"
};

static const struct proof {
	const char *id, *model, *file, *test, *why;
} proofs[] = {
#define ATTACK(...)
#define MODEL(id, fixture, ...) {id, fixture, NULL, NULL, NULL},
#define SHOWN(id, file, test) {id, NULL, file, test, NULL},
#define WAITS(id, why) {id, NULL, NULL, NULL, why},
#include "tests/attacks.def"
};

static const struct {
	const char *id, *fixture, *without;
} matrix[] = {
#define MATRIX(...) {__VA_ARGS__},
#include "tests/matrix.def"
};

/* Models by name, tests by the name of their program; each once. */
static void print_proofs(const char *id)
{
	const char *last = "";
	bool any = false;

	for (size_t i = 0; i < sizeof(proofs) / sizeof(proofs[0]); i++) {
		const struct proof *p = &proofs[i];
		const char *name = p->model ? p->model : p->why ? p->why : strrchr(p->file, '/') + 1;

		if (strcmp(p->id, id) != 0 || strcmp(last, name) == 0)
			continue;
		printf(any ? ", " : "");
		if (p->why)
			print_cell(name);
		else
			printf("%.*s", (int)(strlen(name) - (p->file ? 2 : 0)), name);
		last = name;
		any = true;
	}
}

static void print_attacks(void)
{
	printf("| | act | the client sees | first | next | shown by |\n| --- | --- | --- | --- | --- | --- |\n");
	for (size_t i = 0; i < sizeof(attacks) / sizeof(attacks[0]); i++) {
		const struct attack *a = &attacks[i];

		printf("| %s | ", a->id);
		print_cell(a->act);
		printf(" | ");
		print_cell(a->sees);
		printf(" | ");
		print_cell(a->first);
		printf(" | ");
		print_cell(a->second);
		printf(" | ");
		print_proofs(a->id);
		printf(" |\n");
	}
}

/* The sets with one layer only; the layers without any of which it gets through. */
static bool is_alone(const char *set, size_t n)
{
	return memchr(set, ',', n) == NULL;
}

static void print_sets(const char *sets, bool alone)
{
	bool any = false;

	for (const char *at = sets; *at;) {
		size_t n = strcspn(at, ";");

		if (is_alone(at, n) == alone) {
			printf("%s", any ? "; " : "");
			for (size_t i = 0; i < n; i++)
				printf(at[i] == ',' ? " + " : "%c", at[i]);
			any = true;
		}
		at += n + strspn(at + n, "; ");
	}
	if (!any)
		printf("-");
}

static void print_matrix(void)
{
	printf("Programs that are compiled so that a layer can be left out (`confine/test_layers.h`; the installed ones cannot) run each of these "
	       "models with\none layer off, then with all filters and another one off; `make matrix`, as root. Tried were: " TRIED ".\n\n"
	       "\"filters\" are all of seccomp, \"run-filter\" what the model runs under while the load filter stays. An attack counts as through "
	       "if it got what it\nwanted, which says nothing of what that would have been good for: a system call that answers, at the least.\n\n"
	       "| | model | through without this one layer: a single line | only without these together |\n| --- | --- | --- | --- |\n");
	for (size_t i = 0; i < sizeof(matrix) / sizeof(matrix[0]); i++) {
		printf("| %s | %s | ", matrix[i].id, matrix[i].fixture);
		print_sets(matrix[i].without, true);
		printf(" | ");
		print_sets(matrix[i].without, false);
		printf(" |\n");
	}
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "protocol"))
		print_protocol();
	else if (argc == 2 && !strcmp(argv[1], "ops"))
		print_ops();
	else if (argc == 2 && !strcmp(argv[1], "attacks"))
		print_attacks();
	else if (argc == 2 && !strcmp(argv[1], "matrix"))
		print_matrix();
	else
		return fprintf(stderr, "usage: docgen protocol|ops|attacks|matrix\n"), 2;
	return fflush(stdout) || ferror(stdout);
}
