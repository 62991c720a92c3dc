/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pt2box top: one line a model, once a second. On a terminal the screen is drawn over; elsewhere every look is printed below
 * the last one.
 */
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "client/cmd/json.h"

#define COLUMNS_MIN 80

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Runs of the same model at the last look; -1: it was not there. */
static int64_t runs_before(const json_t *before, const json_t *model)
{
	const json_t *m;
	size_t i;

	json_array_foreach(json_object_get(before, "models"), i, m)
		if (cmd_json_int(m, "serial") == cmd_json_int(model, "serial") &&
		    strcmp(cmd_json_text(m, "tenant"), cmd_json_text(model, "tenant")) == 0)
			return cmd_json_int(m, "runs");
	return -1;
}

static int64_t count_deaths(const json_t *m)
{
	const json_t *n;
	const char *status;
	int64_t sum = 0;

	json_object_foreach((json_t *)(uintptr_t)json_object_get(m, "deaths"), status, n)
		sum += json_integer_value(n);
	return sum;
}

static void count_workers(const json_t *m, char *text, size_t cap, char bytes[24])
{
	int64_t ready = 0, sum = 0;
	bool known = true;
	const json_t *w;
	size_t i;

	json_array_foreach(json_object_get(m, "workers"), i, w)
	{
		ready += strcmp(cmd_json_text(w, "state"), "ready") == 0;
		known &= cmd_json_int(w, "private_bytes") >= 0;
		sum += cmd_json_int(w, "private_bytes");
	}
	snprintf(text, cap, "%lld/%zu", (long long)ready, json_array_size(json_object_get(m, "workers")));
	cmd_show_bytes(known ? sum : -1, bytes);
}

static void show_model(const json_t *m, const json_t *before, double passed, int width)
{
	const json_t *cause = json_object_get(m, "cause");
	const int64_t runs = cmd_json_int(m, "runs"), old = runs_before(before, m);
	char name[128], tenant[64], workers[32], bytes[24], rate[24] = "-", line[1024], text[512] = "";

	pb_text_escape(name, sizeof(name), cmd_json_text(m, "name"), strlen(cmd_json_text(m, "name")));
	pb_text_escape(tenant, sizeof(tenant), cmd_json_text(m, "tenant"), strlen(cmd_json_text(m, "tenant")));
	count_workers(m, workers, sizeof(workers), bytes);
	if (old >= 0 && runs >= old && passed > 0)
		snprintf(rate, sizeof(rate), "%.0f", (double)(runs - old) / passed);
	if (json_is_object(cause))
		snprintf(text, sizeof(text), "%.40s: %.400s", cmd_json_text(cause, "status"), cmd_json_text(cause, "text"));
	snprintf(line, sizeof(line), "%-20.20s %-12.12s %-11s %-8.8s %7s %8s %10lld %6lld %10s  ", name, tenant,
		 cmd_json_text(m, "health"), cmd_json_text(m, "state"), workers, rate, (long long)runs,
		 (long long)count_deaths(m), bytes);
	pb_text_escape(line + strlen(line), sizeof(line) - strlen(line), text, strlen(text));
	printf("%.*s\n", width, line);
}

static void show(const json_t *o, const json_t *before, double passed)
{
	const json_t *b = json_object_get(o, "broker"), *m;
	struct winsize w = {0};
	int width = 4096, rows = 1 << 20, shown = 0;
	char rss[24];
	size_t i;

	if (isatty(STDOUT_FILENO)) {
		width = ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col ? w.ws_col : COLUMNS_MIN;
		rows = w.ws_row > 4 ? w.ws_row - 4 : rows;
		fputs("\033[H\033[2J", stdout);
	}
	printf("pt2box: %zu models, broker %s, %lld descriptors, up %lld s\n\n", json_array_size(json_object_get(o, "models")),
	       cmd_show_bytes(cmd_json_int(b, "rss_bytes"), rss), (long long)cmd_json_int(b, "fds"),
	       (long long)cmd_json_int(b, "uptime_ms") / 1000);
	printf("%.*s\n", width,
	       "MODEL                TENANT       HEALTH      STATE    WORKERS   RUNS/S       RUNS DEATHS    PRIVATE  LAST CAUSE");
	json_array_foreach(json_object_get(o, "models"), i, m)
		if (shown++ < rows)
			show_model(m, before, passed, width);
}

pb_status cmd_top(const struct cmd_options *o, struct pt2box_error *err)
{
	struct pt2box *c = NULL;
	json_t *root = NULL, *before = NULL;
	double then = 0, now;
	pb_status st = cmd_ps_open(o, "top", &c, err);

	for (uint32_t i = 0; !st && (o->runs == 0 || i < o->runs); i++) {
		if (i > 0)
			clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){.tv_sec = 1}, NULL);
		st = cmd_ps_ask(c, &root, err);
		if (st)
			break;
		now = seconds();
		if (i > 0 && !isatty(STDOUT_FILENO))
			putchar('\n');
		show(root, before, now - then);
		if (fflush(stdout) != 0)
			break; /* main() says so */
		json_decref(before);
		before = root;
		root = NULL;
		then = now;
	}
	json_decref(root);
	json_decref(before);
	pt2box_close(c);
	return st;
}
