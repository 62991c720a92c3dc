/* SPDX-License-Identifier: Apache-2.0 */
/* pt2box inspect: what is in a package, and whether it could run here. None of its code runs. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/cmd/cpu.h"
#include "client/cmd/json.h"
#include "client/cmd/signature.h"

#define LABEL "%-12s"
#define WIDTH 100
#define LARGEST 8

static void label(const char *text)
{
	printf(LABEL, text);
}

/* ---- constants ---- */

static int by_bytes(const void *a, const void *b)
{
	int64_t x = cmd_json_int(*(json_t *const *)a, "bytes"), y = cmd_json_int(*(json_t *const *)b, "bytes");

	return (x < y) - (x > y);
}

static void show_constant(const json_t *c)
{
	char bytes[24];
	const json_t *v;
	size_t i;

	label("");
	printf("%10s  %-9s  ", cmd_show_bytes(cmd_json_int(c, "bytes"), bytes), cmd_json_text(c, "type"));
	cmd_show_text(stdout, cmd_json_text(c, "fqn"));
	printf("  %s[", cmd_json_text(c, "dtype"));
	json_array_foreach(json_object_get(c, "shape"), i, v)
		printf(i ? ", %lld" : "%lld", (long long)json_integer_value(v));
	puts("]");
}

static void show_constants(const json_t *o)
{
	const json_t *c = json_object_get(o, "constants"), *list = json_object_get(c, "list");
	size_t n = json_array_size(list);
	json_t **sorted = calloc(n + 1, sizeof(*sorted));
	char bytes[24];

	label("constants");
	printf("%zu, %s, %s\n", n, cmd_show_bytes(cmd_json_int(c, "bytes"), bytes), cmd_json_text(c, "source"));
	for (size_t i = 0; sorted && i < n; i++)
		sorted[i] = json_array_get(list, i);
	if (sorted && n)
		qsort(sorted, n, sizeof(*sorted), by_bytes);
	for (size_t i = 0; sorted && i < n && i < LARGEST; i++)
		show_constant(sorted[i]);
	if (n > LARGEST) {
		label("");
		printf("%10s  and %zu smaller ones\n", "", n - LARGEST);
	}
	free(sorted);
}

/* ---- operators ---- */

/* Without what all of them begin with. */
static const char *short_name(const char *name)
{
	return strncmp(name, "aoti_torch_", 11) == 0 ? name + 11 : name;
}

static void show_names(const json_t *imports, const char *state)
{
	size_t column = WIDTH, i;
	const char *title = state;
	const json_t *im;

	json_array_foreach(imports, i, im)
	{
		const char *name = short_name(cmd_json_text(im, "name"));

		if (strcmp(cmd_json_text(im, "state"), state) != 0)
			continue;
		if (column + strlen(name) + 1 > WIDTH) {
			if (column != WIDTH)
				putchar('\n');
			label("");
			column = 12 + 9;
			printf("%-9s", title);
			title = "";
		}
		putchar(' ');
		cmd_show_text(stdout, name);
		column += strlen(name) + 1;
	}
	if (column != WIDTH)
		putchar('\n');
}

static void show_notes(const json_t *imports, const char *state)
{
	const json_t *im;
	size_t i;

	json_array_foreach(imports, i, im)
	{
		if (strcmp(cmd_json_text(im, "state"), state) != 0)
			continue;
		label("");
		printf("%-9s ", state);
		cmd_show_text(stdout, cmd_json_text(im, "name"));
		fputs(": ", stdout);
		cmd_show_text(stdout, cmd_json_text(im, "note"));
		putchar('\n');
	}
}

static void show_operators(const json_t *o)
{
	const json_t *n = json_object_get(o, "import_counts"), *imports = json_object_get(o, "imports");

	label("operators");
	printf("%lld native, %lld proxied, %lld absent, %lld of other libraries\n", (long long)cmd_json_int(n, "native"),
	       (long long)cmd_json_int(n, "proxied"), (long long)cmd_json_int(n, "absent"),
	       (long long)cmd_json_int(n, "other"));
	show_names(imports, "native");
	show_names(imports, "other");
	show_notes(imports, "proxied");
	show_notes(imports, "absent");
}

/* Each operator once, with how often it is called. */
static void show_nodes(const json_t *o)
{
	const json_t *nodes = json_object_get(o, "extern_nodes"), *n, *other;
	const char *title = "by name";
	size_t i, k;

	json_array_foreach(nodes, i, n)
	{
		const char *name = cmd_json_text(n, "operator");
		size_t count = 0, before = 0;

		json_array_foreach(nodes, k, other)
		{
			bool same = strcmp(cmd_json_text(other, "operator"), name) == 0;

			count += same;
			before += same && k < i;
		}
		if (before)
			continue;
		label(title);
		title = "";
		printf("%-9s ", cmd_json_text(n, "state"));
		cmd_show_text(stdout, name);
		if (count > 1)
			printf(", %zu calls", count);
		puts(json_is_true(json_object_get(n, "python")) ? ", made in Python" : "");
	}
}

/* ---- the CPU ---- */

/* What the code needs and this CPU lacks, space separated, in @missing. */
static void show_cpu(const json_t *o, char *missing, size_t cap)
{
	const json_t *cpu = json_object_get(o, "cpu"), *v;
	char *flags = cmd_cpu_flags();
	size_t i, n = 0;

	missing[0] = '\0';
	label("cpu");
	cmd_show_text(stdout, cmd_json_text(cpu, "isa"));
	fputs(", needs", stdout);
	json_array_foreach(json_object_get(cpu, "needs"), i, v)
	{
		putchar(' ');
		cmd_show_text(stdout, json_string_value(v));
		if (flags && !cmd_cpu_has(flags, json_string_value(v)) && n < cap)
			n += (size_t)snprintf(missing + n, cap - n, " %s", json_string_value(v));
	}
	printf("; %s%s\n", !flags ? "not known what is here" : n ? "not here:" : "all here", missing);
	if (json_is_true(json_object_get(cpu, "openmp"))) {
		label("");
		printf("OpenMP, compiled for %lld threads (-1: any)\n", (long long)cmd_json_int(cpu, "openmp_threads"));
	}
	free(flags);
}

/* ---- all of it ---- */

static void show_list(const char *name, const json_t *list)
{
	const json_t *v;
	size_t i;

	label(name);
	json_array_foreach(list, i, v)
	{
		fputs(i ? ", " : "", stdout);
		cmd_show_text(stdout, json_string_value(v));
	}
	putchar('\n');
}

static void show_metadata(const json_t *o)
{
	const char *key, *title = "metadata";
	json_t *v;

	json_object_foreach(json_object_get(o, "metadata"), key, v)
	{
		label(title);
		title = "";
		cmd_show_text(stdout, key);
		fputs(" = ", stdout);
		cmd_show_text(stdout, json_string_value(v) ? json_string_value(v) : "?");
		putchar('\n');
	}
}

static void show_verdict(const json_t *o, const char *missing)
{
	const json_t *n = json_object_get(o, "import_counts"), *im;
	int64_t lacking = cmd_json_int(n, "absent") + cmd_json_int(n, "proxied");
	size_t i;

	if (missing[0]) {
		printf("cannot run here: the CPU lacks%s\n", missing);
		return;
	}
	if (lacking == 0) {
		puts("runs on: native");
		return;
	}
	fputs("cannot run here on native:", stdout);
	json_array_foreach(json_object_get(o, "imports"), i, im)
	{
		const char *state = cmd_json_text(im, "state");

		if (strcmp(state, "absent") != 0 && strcmp(state, "proxied") != 0)
			continue;
		putchar(' ');
		cmd_show_text(stdout, cmd_json_text(im, "name"));
	}
	puts("; backend torch could, where PyTorch is installed (pt2box doctor)");
}

static void show_names_of(const json_t *o)
{
	show_list("models", json_object_get(o, "models"));
	label("shown");
	cmd_show_text(stdout, cmd_json_text(o, "model"));
	fputs(", for ", stdout);
	cmd_show_text(stdout, cmd_json_text(o, "device"));
	puts(json_is_true(json_object_get(o, "stateful")) ? ", keeps state from run to run" : "");
}

static void show_package(const char *path)
{
	label("package");
	cmd_show_text(stdout, path);
	putchar('\n');
}

static void show_brief(const char *path, const json_t *o)
{
	show_package(path);
	show_names_of(o);
	show_metadata(o);
}

static void show(const char *path, const json_t *o)
{
	const json_t *code = json_object_get(o, "code");
	char bytes[24], missing[512];

	show_package(path);
	printf(LABEL "%s\n", "sha256", cmd_json_text(o, "package_sha256"));
	show_names_of(o);
	label("call");
	cmd_show_call(stdout, o);
	cmd_show_inputs(stdout, o);
	label("outputs");
	printf("%lld\n", (long long)cmd_json_int(o, "n_outputs"));
	show_constants(o);
	show_metadata(o);
	label("code");
	printf("%s, %lld constructors%s\n", cmd_show_bytes(cmd_json_int(code, "bytes"), bytes),
	       (long long)cmd_json_int(code, "constructors"),
	       json_is_true(json_object_get(code, "minimal_arrayref")) ? ", minimal arrayref interface" : "");
	show_cpu(o, missing, sizeof(missing));
	show_operators(o);
	show_nodes(o);
	show_verdict(o, missing);
}

pb_status cmd_inspect(const struct cmd_options *o, struct pt2box_error *err)
{
	struct pt2box *c = NULL;
	json_t *root = NULL;
	char *text = NULL;
	int fd = -1;
	pb_status st = cmd_open_package(o->package, &fd, err);

	if (!st)
		st = pt2box_open(o->socket, &c, err);
	cmd_progress_start("inspecting");
	if (!st)
		st = o->metadata ? pt2box_inspect_metadata_fd(c, fd, o->name, &text, err)
				 : pt2box_inspect_fd(c, fd, o->name, &text, err);
	cmd_progress_stop();
	if (!st)
		st = cmd_json_take(text, &root, err);
	if (!st && o->json)
		cmd_json_print(root);
	else if (!st && o->metadata)
		show_brief(o->package, root);
	else if (!st)
		show(o->package, root);
	json_decref(root);
	if (fd >= 0)
		close(fd);
	pt2box_close(c);
	return st;
}
