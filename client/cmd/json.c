/* SPDX-License-Identifier: Apache-2.0 */
/* See json.h. */
#include "client/cmd/json.h"

#include <string.h>

pb_status cmd_json_take(char *text_take, json_t **ret, struct pt2box_error *err)
{
	json_error_t fault;

	*ret = json_loads(text_take, 0, &fault);
	pt2box_free_text(text_take);
	if (*ret)
		return PT2BOX_OK;
	return pb_error_set(err, PT2BOX_PROTOCOL, "the broker's answer is not JSON: %s", fault.text);
}

void cmd_json_print(const json_t *o)
{
	json_dumpf(o, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(8));
	putchar('\n');
}

const char *cmd_json_text(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

int64_t cmd_json_int(const json_t *o, const char *key)
{
	const json_t *v = json_object_get(o, key);

	return json_is_integer(v) ? json_integer_value(v) : -1;
}
