/* SPDX-License-Identifier: Apache-2.0 */
/* pt2box doctor: what this machine can enforce, and what is in force. */
#include <string.h>
#include <sys/utsname.h>

#include "client/cmd/json.h"

/* Models do not run without these: what confine/ calls required. The others are walls behind walls. */
static const char *const required[] = {
	"sealed memory",   "network namespace", "pid namespace", "empty root",		 "resource limits",
	"no capabilities", "not dumpable",	"no_new_privs",	 "seccomp load filter", "seccomp run filter",
};
#define N_REQUIRED (sizeof(required) / sizeof(required[0]))

static bool is_required(const char *name)
{
	for (size_t i = 0; i < N_REQUIRED; i++)
		if (strcmp(name, required[i]) == 0)
			return true;
	return false;
}

static const json_t *find(const json_t *layers, const char *name)
{
	const json_t *l;
	size_t i;

	json_array_foreach(layers, i, l)
		if (strcmp(cmd_json_text(l, "name"), name) == 0)
			return l;
	return NULL;
}

/* A layer that is not listed could not even be tried: one that it needs had failed. */
static size_t count_missing(const json_t *layers)
{
	size_t n = 0;

	for (size_t i = 0; i < N_REQUIRED; i++)
		n += strcmp(cmd_json_text(find(layers, required[i]), "state"), "on") != 0;
	return n;
}

static void show_layer(const char *name, const char *state, const char *detail)
{
	printf("  %-32s %-8s", name, state);
	cmd_show_text(stdout, detail);
	putchar('\n');
}

static void show_layers(const char *title, const json_t *layers)
{
	const json_t *l;
	size_t i;

	printf("\n%s\n", title);
	json_array_foreach(layers, i, l)
	{
		const char *name = cmd_json_text(l, "name"), *state = cmd_json_text(l, "state");

		show_layer(name, strcmp(state, "on") != 0 && is_required(name) ? "missing" : state,
			   cmd_json_text(l, "detail"));
	}
}

static void show_untried(const json_t *layers)
{
	for (size_t i = 0; i < N_REQUIRED; i++)
		if (!find(layers, required[i]))
			show_layer(required[i], "missing", "could not be tried: something before it failed");
}

static void show_place(const char *what, const json_t *t)
{
	fputs(what, stdout);
	if (json_is_string(json_object_get(t, "path"))) {
		cmd_show_text(stdout, cmd_json_text(t, "version"));
		fputs(" in ", stdout);
		cmd_show_text(stdout, cmd_json_text(t, "path"));
		fputs(", ", stdout);
	} else {
		fputs("not here: ", stdout);
	}
	cmd_show_text(stdout, cmd_json_text(t, "text"));
	putchar('\n');
}

static void show(const json_t *o)
{
	const json_t *v, *models = json_object_get(o, "models");
	struct utsname u;
	size_t i;

	printf("pt2box %s", cmd_json_text(o, "version"));
	if (uname(&u) == 0)
		printf(" on %s %s, %s", u.sysname, u.release, u.machine);
	fputs("\ncpu", stdout);
	json_array_foreach(json_object_get(o, "cpu_features"), i, v)
		printf(" %s", json_string_value(v) ? json_string_value(v) : "?");
	putchar('\n');
	show_place("backend torch ", json_object_get(o, "torch"));
	show_place("operators in Python ", json_object_get(o, "python"));
	show_layers("what can be enforced here, for every model", json_object_get(o, "layers"));
	show_untried(json_object_get(o, "layers"));
	if (json_array_size(json_object_get(o, "broker")))
		show_layers("in force for the broker", json_object_get(o, "broker"));
	if (json_array_size(json_object_get(o, "spawner")))
		show_layers("in force for the broker's spawner", json_object_get(o, "spawner"));
	json_array_foreach(models, i, v)
	{
		char title[64];

		snprintf(title, sizeof(title), "in force for model %lld", (long long)cmd_json_int(v, "id"));
		show_layers(title, json_object_get(v, "layers"));
	}
}

pb_status cmd_doctor(const struct cmd_options *o, struct pt2box_error *err)
{
	struct pt2box *c = NULL;
	json_t *root = NULL;
	char *text = NULL;
	size_t missing = 0;
	pb_status st = pt2box_open(o->socket, &c, err);

	if (!st)
		st = pt2box_doctor(c, &text, err);
	if (!st)
		st = cmd_json_take(text, &root, err);
	if (!st && o->json)
		cmd_json_print(root);
	else if (!st)
		show(root);
	if (!st)
		missing = count_missing(json_object_get(root, "layers"));
	if (missing)
		st = pb_error_set(err, PT2BOX_LAYER_MISSING,
				  "%zu layers that models do not run without cannot be had here: the list says why", missing);
	json_decref(root);
	pt2box_close(c);
	return st;
}
