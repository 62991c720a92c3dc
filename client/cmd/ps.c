/* SPDX-License-Identifier: Apache-2.0 */
/* pt2box ps: models and processes of a running broker. */
#include <string.h>

#include "client/cmd/json.h"

static void row(const char *what, const char *state, const json_t *process, const char *rest)
{
	char priv[24], pss[24];

	printf("%-24.24s %-10s ", what, state);
	if (cmd_json_int(process, "pid") > 0)
		printf("%7lld", (long long)cmd_json_int(process, "pid"));
	else
		printf("%7s", "-");
	printf(" %10s %10s  %s\n", cmd_show_bytes(cmd_json_int(process, "private_bytes"), priv),
	       cmd_show_bytes(cmd_json_int(process, "pss_bytes"), pss), rest);
}

/* Not of one that is well: the last cause of death, and how long ago it was. */
static void show_health(const json_t *m)
{
	const json_t *cause = json_object_get(m, "cause");

	if (strcmp(cmd_json_text(m, "health"), "healthy") == 0)
		return;
	printf("  %s", cmd_json_text(m, "health"));
	if (json_is_object(cause)) {
		printf(", %lld s ago: %s: ", (long long)cmd_json_int(cause, "age_ms") / 1000, cmd_json_text(cause, "status"));
		cmd_show_text(stdout, cmd_json_text(cause, "text"));
	}
	putchar('\n');
}

static void show_model(const json_t *m)
{
	char name[24], rest[160], bytes[24], kind[32];
	const json_t *w;
	size_t i;

	pb_text_escape(name, sizeof(name), cmd_json_text(m, "name"), strlen(cmd_json_text(m, "name")));
	snprintf(rest, sizeof(rest), "%s, %s%s, %lld lanes, %s shared, %lld restarts", cmd_json_text(m, "backend"),
		 cmd_json_text(m, "profile"), json_is_true(json_object_get(m, "stateful")) ? ", stateful" : "",
		 (long long)cmd_json_int(m, "lanes"), cmd_show_bytes(cmd_json_int(m, "memfd_bytes"), bytes),
		 (long long)cmd_json_int(m, "restarts"));
	row(name, cmd_json_text(m, "state"), json_object_get(m, "warden"), rest);
	show_health(m);
	if (json_object_get(m, "template"))
		row("  template", "", json_object_get(m, "template"), "");
	json_array_foreach(json_object_get(m, "workers"), i, w)
	{
		snprintf(kind, sizeof(kind), "  worker %lld", (long long)cmd_json_int(w, "index"));
		snprintf(rest, sizeof(rest), cmd_json_int(w, "deaths") > 0 ? "died %lld times" : "",
			 (long long)cmd_json_int(w, "deaths"));
		row(kind, cmd_json_text(w, "state"), w, rest);
	}
	w = json_object_get(m, "ops");
	if (w) {
		snprintf(rest, sizeof(rest), cmd_json_int(w, "deaths") > 0 ? "died %lld times" : "",
			 (long long)cmd_json_int(w, "deaths"));
		row("  operators", "", w, rest);
	}
}

static void fill(json_t *o)
{
	json_t *m, *w;
	size_t i, k;

	cmd_memory_fill(json_object_get(o, "broker"));
	cmd_memory_fill(json_object_get(o, "spawner"));
	json_array_foreach(json_object_get(o, "models"), i, m)
	{
		cmd_memory_fill(json_object_get(m, "warden"));
		cmd_memory_fill(json_object_get(m, "template"));
		cmd_memory_fill(json_object_get(m, "ops"));
		json_array_foreach(json_object_get(m, "workers"), k, w)
			cmd_memory_fill(w);
	}
}

static const char *count(char *text, size_t cap, const json_t *t, const char *key, bool bytes)
{
	const json_t *l = json_object_get(t, key);
	char used[24], limit[24];

	if (bytes)
		snprintf(text, cap, "%s/%s", cmd_show_bytes(cmd_json_int(l, "used"), used),
			 cmd_show_bytes(cmd_json_int(l, "limit"), limit));
	else
		snprintf(text, cap, "%lld/%lld", (long long)cmd_json_int(l, "used"), (long long)cmd_json_int(l, "limit"));
	return text;
}

/* What each holds, of what it may: one's own, or for an operator everybody's. */
static void show_tenants(const json_t *list)
{
	static const struct {
		const char *key, *title;
		bool bytes;
		int width;
	} columns[] = {
		{"connections", "CONNECTIONS", false, 12}, {"models", "MODELS", false, 9},
		{"workers", "WORKERS", false, 10},	   {"constants_bytes", "CONSTANTS", true, 21},
		{"lanes_bytes", "LANES", true, 21},	   {"runs_in_flight", "RUNS", false, 12},
		{"fds", "FDS", false, 12},
	};
	const json_t *t;
	char text[64];
	size_t i;

	if (json_array_size(list) == 0)
		return;
	printf("\n%-24s", "TENANT");
	for (size_t k = 0; k < sizeof(columns) / sizeof(columns[0]); k++)
		printf(" %*s", columns[k].width, columns[k].title);
	putchar('\n');
	json_array_foreach(list, i, t)
	{
		pb_text_escape(text, sizeof(text), cmd_json_text(t, "name"), strlen(cmd_json_text(t, "name")));
		printf("%-24.24s", text);
		for (size_t k = 0; k < sizeof(columns) / sizeof(columns[0]); k++)
			printf(" %*s", columns[k].width, count(text, sizeof(text), t, columns[k].key, columns[k].bytes));
		putchar('\n');
	}
}

static void show(const json_t *o)
{
	const json_t *m;
	size_t i;

	printf("%-24s %-10s %7s %10s %10s\n", "WHAT", "STATE", "PID", "PRIVATE", "PSS");
	row("broker", "", json_object_get(o, "broker"), "");
	row("spawner", "", json_object_get(o, "spawner"), "");
	json_array_foreach(json_object_get(o, "models"), i, m)
		show_model(m);
	show_tenants(json_object_get(o, "tenants"));
}

pb_status cmd_ps_open(const struct cmd_options *o, const char *verb, struct pt2box **ret, struct pt2box_error *err)
{
	if (!o->socket)
		return pb_error_set(err, PT2BOX_USAGE, "%s needs a running broker: --socket S, or PT2BOX_SOCKET", verb);
	return pt2box_open(o->socket, ret, err);
}

pb_status cmd_ps_ask(struct pt2box *c, json_t **ret, struct pt2box_error *err)
{
	char *text = NULL;
	pb_status st = pt2box_ps(c, &text, err);

	if (!st)
		st = cmd_json_take(text, ret, err);
	if (!st)
		fill(*ret);
	return st;
}

pb_status cmd_ps(const struct cmd_options *o, struct pt2box_error *err)
{
	struct pt2box *c = NULL;
	json_t *root = NULL;
	pb_status st = cmd_ps_open(o, "ps", &c, err);

	if (!st)
		st = cmd_ps_ask(c, &root, err);
	if (!st && o->json)
		cmd_json_print(root);
	else if (!st)
		show(root);
	json_decref(root);
	pt2box_close(c);
	return st;
}
