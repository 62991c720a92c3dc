/* SPDX-License-Identifier: Apache-2.0 */
/* The call of a model as people write it: (x: float32[1..1024, 64]) -> out0 */
#ifndef PT2BOX_CMD_SIGNATURE_H
#define PT2BOX_CMD_SIGNATURE_H

#include <jansson.h>
#include <stdio.h>

/* @o: pt2box_inspect_fd()'s. One line. */
void cmd_show_call(FILE *f, const json_t *o);
/* A line for each input, the first with the label "inputs". */
void cmd_show_inputs(FILE *f, const json_t *o);

#endif
