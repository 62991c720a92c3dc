/* SPDX-License-Identifier: Apache-2.0 */
/* Values for people. */
#include <inttypes.h>
#include <string.h>

#include "client/cmd/cmd.h"

#define SHOWN 6

static double half(uint16_t h)
{
	int exponent = h >> 10 & 31, mantissa = h & 1023;
	double v = exponent == 0    ? mantissa * 0x1p-24
		   : exponent == 31 ? (mantissa ? __builtin_nan("") : __builtin_inf())
				    : (1024 + mantissa) * __builtin_ldexp(1, exponent - 25);

	return h >> 15 ? -v : v;
}

static double bfloat16(uint16_t h)
{
	uint32_t bits = (uint32_t)h << 16;
	float f;

	memcpy(&f, &bits, sizeof(f));
	return (double)f;
}

/* p may be at any address: outputs are a model's. */
#define AS_AT(type, at) (__extension__({ type x; memcpy(&x, p + (at), sizeof(x)); x; }))
#define AS(type) AS_AT(type, 0)

static void show_element(FILE *f, int32_t dtype, const uint8_t *p)
{
	switch (dtype) {
	case PT2BOX_BOOL:
		fputs(*p ? " true" : " false", f);
		break;
	case PT2BOX_UINT8:
		fprintf(f, " %u", *p);
		break;
	case PT2BOX_INT8:
		fprintf(f, " %d", (int8_t)*p);
		break;
	case PT2BOX_INT16:
		fprintf(f, " %d", AS(int16_t));
		break;
	case PT2BOX_UINT16:
		fprintf(f, " %u", AS(uint16_t));
		break;
	case PT2BOX_INT32:
		fprintf(f, " %" PRId32, AS(int32_t));
		break;
	case PT2BOX_UINT32:
		fprintf(f, " %" PRIu32, AS(uint32_t));
		break;
	case PT2BOX_INT64:
		fprintf(f, " %" PRId64, AS(int64_t));
		break;
	case PT2BOX_UINT64:
		fprintf(f, " %" PRIu64, AS(uint64_t));
		break;
	case PT2BOX_FLOAT16:
		fprintf(f, " %.4g", half(AS(uint16_t)));
		break;
	case PT2BOX_BFLOAT16:
		fprintf(f, " %.4g", bfloat16(AS(uint16_t)));
		break;
	case PT2BOX_FLOAT32:
		fprintf(f, " %.6g", (double)AS(float));
		break;
	case PT2BOX_FLOAT64:
		fprintf(f, " %.6g", AS(double));
		break;
	case PT2BOX_COMPLEX64:
		fprintf(f, " %.6g%+.6gj", (double)AS_AT(float, 0), (double)AS_AT(float, 4));
		break;
	case PT2BOX_COMPLEX128:
		fprintf(f, " %.6g%+.6gj", AS_AT(double, 0), AS_AT(double, 8));
		break;
	default:
		fputs(" ?", f);
	}
}

void cmd_show_tensor(FILE *f, const char *name, const struct pt2box_tensor_info *t)
{
	size_t elem = pt2box_dtype_size(t->dtype);

	fprintf(f, "%-6s %s[", name, pt2box_dtype_name(t->dtype));
	for (int32_t d = 0; d < t->ndim; d++)
		fprintf(f, d ? ", %lld" : "%lld", (long long)t->sizes[d]);
	fputs("] ", f);
	for (int64_t i = 0; i < t->numel && i < SHOWN; i++) {
		const uint8_t *p = t->data;

		for (int64_t d = t->ndim - 1, rest = i; d >= 0; rest /= t->sizes[d--])
			p += rest % t->sizes[d] * t->strides[d] * (int64_t)elem;
		show_element(f, t->dtype, p);
	}
	fputs(t->numel > SHOWN ? " ...\n" : "\n", f);
}

const char *cmd_show_bytes(int64_t bytes, char buf[24])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	double v = (double)bytes;
	int u = 0;

	if (bytes < 0)
		return "-";
	for (; v >= 1024 && u < 4; u++)
		v /= 1024;
	snprintf(buf, 24, u ? "%.1f %s" : "%.0f %s", v, units[u]);
	return buf;
}

void cmd_show_text(FILE *f, const char *text)
{
	char clean[1024];

	pb_text_escape(clean, sizeof(clean), text, strlen(text));
	fputs(clean, f);
}
