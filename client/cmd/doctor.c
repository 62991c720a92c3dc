/* SPDX-License-Identifier: Apache-2.0 */
/* pt2box doctor: what this machine can enforce, and what is in force. */
#include <string.h>
#include <sys/utsname.h>

#include "client/cmd/json.h"

/* Models do not run without these: see "required" in confine/steps.h. The others are walls behind walls. */
static const char *const required[] = {
	"sealed memory",   "uts namespace",    "ipc namespace",	      "pid namespace",	 "network namespace",
	"mount namespace", "pid and mount namespaces", "empty root",  "resource limits", "capabilities",
	"no_new_privs",	   "not dumpable",     "seccomp load filter", "seccomp run filter",
};

static bool is_required(const char *name)
{
	for (size_t i = 0; i < sizeof(required) / sizeof(required[0]); i++)
		if (strcmp(name, required[i]) == 0)
			return true;
	return false;
}

/* Returns how many required layers are missing. */
static size_t show_layers(const char *title, const json_t *layers)
{
	const json_t *l;
	size_t i, missing = 0;

	printf("%s\n", title);
	json_array_foreach(layers, i, l)
	{
		const char *name = cmd_json_text(l, "name"), *state = cmd_json_text(l, "state");
		bool bad = strcmp(state, "on") != 0 && is_required(name);

		missing += bad;
		printf("  %-32s %-8s", name, bad ? "missing" : state);
		cmd_show_text(stdout, cmd_json_text(l, "detail"));
		putchar('\n');
	}
	return missing;
}

static size_t count_missing(const json_t *layers)
{
	const json_t *l;
	size_t i, n = 0;

	json_array_foreach(layers, i, l)
		n += strcmp(cmd_json_text(l, "state"), "on") != 0 && is_required(cmd_json_text(l, "name"));
	return n;
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
	show_layers("\nwhat can be enforced here, for every model", json_object_get(o, "layers"));
	if (json_array_size(json_object_get(o, "spawner")))
		show_layers("\nin force for the broker's spawner", json_object_get(o, "spawner"));
	json_array_foreach(models, i, v)
	{
		char title[64];

		snprintf(title, sizeof(title), "\nin force for model %lld", (long long)cmd_json_int(v, "id"));
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
