/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pt2box metrics: the answer of ps as text for Prometheus (exposition format 0.0.4). Series of one name stand together, so
 * every metric goes over all models.
 */
#include <string.h>

#include "client/cmd/json.h"

/* Names of models and tenants are text of others. */
static void label(const char *key, const char *value, bool first)
{
	char safe[256];

	pb_text_escape(safe, sizeof(safe), value, strlen(value));
	printf("%s%s=\"", first ? "" : ",", key);
	for (const char *p = safe; *p; p++)
		printf(*p == '"' || *p == '\\' ? "\\%c" : "%c", *p);
	putchar('"');
}

static void head(const char *name, const char *type, const char *help)
{
	printf("# HELP pt2box_%s %s\n# TYPE pt2box_%s %s\n", name, help, name, type);
}

static void model_labels(const char *name, const json_t *m)
{
	char serial[24];

	snprintf(serial, sizeof(serial), "%lld", (long long)cmd_json_int(m, "serial"));
	printf("pt2box_%s{", name);
	label("tenant", cmd_json_text(m, "tenant"), true);
	label("model", cmd_json_text(m, "name"), false);
	label("serial", serial, false); /* one tenant may have loaded it several times */
}

static void value(const char *more, const char *text, int64_t v)
{
	if (more)
		label(more, text, false);
	printf("} %lld\n", (long long)v);
}

/* Of every model, a number of ps. */
static void numbers(const json_t *models, const char *key, const char *name, const char *type, const char *help)
{
	const json_t *m;
	size_t i;

	head(name, type, help);
	json_array_foreach(models, i, m)
	{
		model_labels(name, m);
		value(NULL, NULL, cmd_json_int(m, key));
	}
}

static void health(const json_t *models)
{
	static const char *const names[] = {"healthy", "degraded", "quarantined"};
	const json_t *m;
	size_t i;

	head("model_health", "gauge", "1 for what the model is: healthy, degraded or quarantined.");
	json_array_foreach(models, i, m)
		for (size_t k = 0; k < 3; k++) {
			model_labels("model_health", m);
			value("health", names[k], strcmp(cmd_json_text(m, "health"), names[k]) == 0);
		}
}

static void info(const json_t *models)
{
	const json_t *m;
	size_t i;

	head("model_info", "gauge", "Always 1: backend, profile and state of the model.");
	json_array_foreach(models, i, m)
	{
		model_labels("model_info", m);
		label("backend", cmd_json_text(m, "backend"), false);
		label("profile", cmd_json_text(m, "profile"), false);
		value("state", cmd_json_text(m, "state"), 1);
	}
}

static void deaths(const json_t *models)
{
	const json_t *m, *n;
	const char *status;
	size_t i;

	head("model_deaths_total", "counter", "Processes of the model that died or were killed, by status.");
	json_array_foreach(models, i, m)
		json_object_foreach((json_t *)(uintptr_t)json_object_get(m, "deaths"), status, n)
		{
			model_labels("model_deaths_total", m);
			value("status", status, json_integer_value(n));
		}
}

static void workers(const json_t *models)
{
	static const char *const states[] = {"ready", "forking", "dying", "retiring", "none"};
	const json_t *m, *w;
	size_t i, k;

	head("model_workers", "gauge", "Workers of the model, by state; none: one that waits to be started again.");
	json_array_foreach(models, i, m)
		for (size_t s = 0; s < sizeof(states) / sizeof(states[0]); s++) {
			int64_t n = 0;

			json_array_foreach(json_object_get(m, "workers"), k, w)
				n += strcmp(cmd_json_text(w, "state"), states[s]) == 0;
			model_labels("model_workers", m);
			value("state", states[s], n);
		}
}

/* Only where it may be read: as root, or of one's own processes. */
static void memory(const json_t *models)
{
	const json_t *m, *w;
	size_t i, k;

	head("model_private_bytes", "gauge", "Memory that only this model's workers have; missing where it cannot be read.");
	json_array_foreach(models, i, m)
	{
		int64_t sum = 0, one = 0;

		json_array_foreach(json_object_get(m, "workers"), k, w)
		{
			one = cmd_json_int(w, "private_bytes");
			if (one < 0)
				break;
			sum += one;
		}
		if (one < 0)
			continue;
		model_labels("model_private_bytes", m);
		value(NULL, NULL, sum);
	}
}

static void tenants(const json_t *list, const char *name, const char *which, const char *help)
{
	const json_t *t, *l;
	const char *key;
	size_t i;

	head(name, "gauge", help);
	json_array_foreach(list, i, t)
		json_object_foreach((json_t *)(uintptr_t)t, key, l)
			if (json_is_object(l) && json_object_get(l, "limit")) {
				printf("pt2box_%s{", name);
				label("tenant", cmd_json_text(t, "name"), true);
				value("resource", key, cmd_json_int(l, which));
			}
}

static void broker_number(const json_t *o, const char *key, const char *name, const char *help)
{
	if (cmd_json_int(o, key) < 0)
		return;
	head(name, "gauge", help);
	printf("pt2box_%s %lld\n", name, (long long)cmd_json_int(o, key));
}

static void show(const json_t *o)
{
	const json_t *b = json_object_get(o, "broker"), *models = json_object_get(o, "models");

	head("broker_uptime_seconds", "gauge", "Since the broker began.");
	printf("pt2box_broker_uptime_seconds %.3f\n", (double)cmd_json_int(b, "uptime_ms") / 1e3);
	broker_number(b, "rss_bytes", "broker_resident_bytes", "Resident memory of the broker.");
	broker_number(b, "fds", "broker_open_fds", "Open descriptors of the broker; missing before Linux 6.2.");
	head("models", "gauge", "Models that are loaded.");
	printf("pt2box_models %zu\n", json_array_size(models));
	info(models);
	health(models);
	workers(models);
	deaths(models);
	numbers(models, "restarts", "model_restarts_total", "counter", "Times that the model's template was loaded again.");
	numbers(models, "runs", "model_runs_total", "counter", "Runs that workers have answered, as its client counts them.");
	numbers(models, "lanes", "model_lanes", "gauge", "Open lanes.");
	numbers(models, "memfd_bytes", "model_shared_bytes", "gauge",
		"Code, constants and lanes; what several models share is with the first.");
	numbers(models, "start_us", "model_start_microseconds", "gauge", "From the request until it was ready.");
	memory(models);
	tenants(json_object_get(o, "tenants"), "tenant_used", "used", "What a tenant holds.");
	tenants(json_object_get(o, "tenants"), "tenant_limit", "limit", "What a tenant may hold.");
}

pb_status cmd_metrics(const struct cmd_options *o, struct pt2box_error *err)
{
	struct pt2box *c = NULL;
	json_t *root = NULL;
	pb_status st = cmd_ps_open(o, "metrics", &c, err);

	if (!st)
		st = cmd_ps_ask(c, &root, err);
	if (!st)
		show(root);
	json_decref(root);
	pt2box_close(c);
	return st;
}
