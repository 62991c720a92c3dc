/* SPDX-License-Identifier: Apache-2.0 */
/* The record of what is in force. See layers.h. */
#include "confine/layers.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "confine/confine.h"
#include "confine/test_layers.h"

#define LAYERS_MAX 48

/* Static: roles record steps after their memory has been limited. */
static struct {
	const char *name;
	bool on;
	char detail[160];
} layers[LAYERS_MAX];
static size_t n_layers;

static void note(const char *name, bool on, const char *detail, va_list ap)
{
	size_t i;

	for (i = 0; i < n_layers && strcmp(layers[i].name, name) != 0; i++)
		;
	if (i == LAYERS_MAX)
		return;
	if (i == n_layers)
		n_layers++;
	layers[i].name = name;
	layers[i].on = on;
	vsnprintf(layers[i].detail, sizeof(layers[i].detail), detail, ap);
}

void pb_layer_on(const char *name, const char *detail, ...)
{
	va_list ap;

	va_start(ap, detail);
	note(name, true, detail, ap);
	va_end(ap);
}

void pb_layer_off(const char *name, const char *detail, ...)
{
	va_list ap;

	va_start(ap, detail);
	note(name, false, detail, ap);
	va_end(ap);
}

pb_status pb_layer_missing(struct pt2box_error *err, const char *name, const char *detail, ...)
{
	char text[160];
	va_list ap;

	va_start(ap, detail);
	vsnprintf(text, sizeof(text), detail, ap);
	va_end(ap);
	pb_layer_off(name, "%s", text);
	return pb_error_set(err, PT2BOX_LAYER_MISSING, "%s cannot be had here, and models do not run without it: %s",
			    name, text);
}

pb_status pb_layer_failed(struct pt2box_error *err, const char *name, const char *call)
{
	int number = errno;
	pb_status st = pb_layer_missing(err, name, "%s: %s", call, strerror(number));

	if (err)
		err->sys_errno = number;
	return st;
}

char *pb_confine_report_text(void)
{
	char *text = NULL;
	size_t bytes = 0;
	FILE *f = open_memstream(&text, &bytes);

	if (!f)
		return NULL;
	for (size_t i = 0; i < n_layers; i++)
		fprintf(f, "%s\t%s\t%s\n", layers[i].name, layers[i].on ? "on" : "off", layers[i].detail);
	if (fclose(f) != 0) {
		free(text);
		return NULL;
	}
	return text;
}

#ifdef PB_TEST_LAYERS
bool pb_test_layer_off(const char *name)
{
	const char *at = getenv(PB_TEST_LAYERS_ENV);
	size_t n = strlen(name);

	for (; at && *at; at += strcspn(at, ","), at += *at == ',')
		if (strncmp(at, name, n) == 0 && (at[n] == ',' || at[n] == '\0'))
			return true;
	return false;
}

char *pb_test_layers_pass_on(void)
{
	static char text[256];
	const char *off = getenv(PB_TEST_LAYERS_ENV);

	snprintf(text, sizeof(text), "%s=%s", PB_TEST_LAYERS_ENV, off ? off : "");
	return text;
}
#endif
