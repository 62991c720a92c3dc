/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Float8 types. Encoding rounds to nearest even. What is too large becomes infinity in e5m2, the
 * largest number in e4m3fn, and not-a-number in the fnuz types, as measured with PyTorch 2.13.0.
 * Those have one NaN, the pattern of -0. e8m0 is a bare exponent.
 */
#include <math.h>
#include <string.h>

#include "runtime/aoti.h"
#include "runtime/convert.h"

struct format {
	int mantissa, bias;
	uint8_t max;  /* largest finite pattern, without sign */
	uint8_t over; /* what overflows become */
	bool fnuz;
};

static struct format format_of(int32_t dtype)
{
	switch (dtype) {
	case PB_RT_F8_E5M2:
		return (struct format){2, 15, 0x7b, 0x7c, false};
	case PB_RT_F8_E4M3FN:
		return (struct format){3, 7, 0x7e, 0x7e, false};
	case PB_RT_F8_E5M2FNUZ:
		return (struct format){2, 16, 0x7f, 0x80, true};
	default:
		return (struct format){3, 8, 0x7f, 0x80, true};
	}
}

static float e8m0_to_float(uint8_t bits)
{
	return bits == 0xff ? NAN : ldexpf(1, bits - 127);
}

/* Nearest power of two; halfway goes up, zero and below have no pattern of their own. */
static uint8_t e8m0_from_float(float v)
{
	uint32_t u, exponent;

	memcpy(&u, &v, sizeof(u));
	exponent = (u >> 23) & 0xff;
	if (exponent == 0xff)
		return 0xff;
	if ((u & 0x400000) && (exponent > 0 || (u & 0x3fffff)))
		exponent += ((u & 0x3fffff) || (exponent & 1) || exponent > 0) ? 1 : 0;
	return (uint8_t)exponent;
}

float pb_rt_f8_to_float(uint8_t bits, int32_t dtype)
{
	const struct format f = format_of(dtype);
	const int low = bits & 0x7f, exponent = low >> f.mantissa,
		  mantissa = low & ((1 << f.mantissa) - 1);
	float v;

	if (dtype == PB_RT_F8_E8M0FNU)
		return e8m0_to_float(bits);
	if (f.fnuz && bits == 0x80)
		return NAN;
	if (low > f.max)
		return dtype == PB_RT_F8_E5M2 && low == 0x7c ? (bits & 0x80 ? -INFINITY : INFINITY)
							     : NAN;
	if (exponent == 0)
		v = ldexpf((float)mantissa, 1 - f.bias - f.mantissa);
	else
		v = ldexpf((float)(mantissa | 1 << f.mantissa), exponent - f.bias - f.mantissa);
	return bits & 0x80 ? -v : v;
}

uint8_t pb_rt_f8_from_float(float v, int32_t dtype)
{
	const struct format f = format_of(dtype);
	const uint8_t sign = signbit(v) ? 0x80 : 0;
	int exponent, pattern;
	float scaled;

	if (dtype == PB_RT_F8_E8M0FNU)
		return e8m0_from_float(v);
	if (isnan(v))
		return f.fnuz ? 0x80 : sign | 0x7f;
	if (isinf(v))
		return f.fnuz ? 0x80 : sign | f.over;
	v = fabsf(v);
	frexpf(v, &exponent); /* v = m * 2^exponent, m in [0.5, 1) */
	if (exponent < 2 - f.bias)
		exponent = 2 - f.bias; /* denormal: a fixed step */
	scaled = nearbyintf(ldexpf(v, f.mantissa + 1 - exponent));
	pattern = v == 0 ? 0 : (int)scaled + ((exponent - 2 + f.bias) << f.mantissa);
	if (pattern > f.max)
		return f.fnuz ? 0x80 : sign | f.over;
	return f.fnuz && pattern == 0 ? 0 : sign | (uint8_t)pattern;
}
