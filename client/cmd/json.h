/* SPDX-License-Identifier: Apache-2.0 */
/* JSON of the library, for verbs that show it. */
#ifndef PT2BOX_CMD_JSON_H
#define PT2BOX_CMD_JSON_H

#include <jansson.h>

#include "client/cmd/cmd.h"

/* Parse what the library returned, and free it with pt2box_free_text(). json_decref(). */
PB_CHECK pb_status cmd_json_take(char *text_take, json_t **ret, struct pt2box_error *err);
/* Pretty, with a newline. */
void cmd_json_print(const json_t *o);
/* "" and -1 for what is not there. */
const char *cmd_json_text(const json_t *o, const char *key);
int64_t cmd_json_int(const json_t *o, const char *key);
/*
 * Of a process in an answer of ps: fill private_bytes and pss_bytes where the broker, who has no rights, could not read
 * them but this process can, as root can.
 */
void cmd_memory_fill(json_t *process);

/* ---- ps.c ---- */
/* Connect to the broker of --socket; @verb is for the text of USAGE. */
PB_CHECK pb_status cmd_ps_open(const struct cmd_options *o, const char *verb, struct pt2box **ret, struct pt2box_error *err);
/* The broker's answer to ps, with cmd_memory_fill(). json_decref(). */
PB_CHECK pb_status cmd_ps_ask(struct pt2box *c, json_t **ret, struct pt2box_error *err);

#endif
