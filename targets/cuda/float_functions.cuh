// sin, cos and exp with the bits that passes/tir/vector_math.py gives on processors; that file says how they work and how
// exact they are. A thread with an argument that the float32 reduction cannot do takes the way through float64, others do not wait
// for it. Compiled by NVRTC, and as C for kernels that run on a processor.
#ifdef __CUDACC__
#define BNN_FLOAT_FUNCTION static __device__ __forceinline__
#define bnn_bits __float_as_uint
#define bnn_float __uint_as_float
#else
#include <math.h>
#include <string.h>
#pragma STDC FP_CONTRACT OFF
#define BNN_FLOAT_FUNCTION
static unsigned bnn_bits(float value) {
    unsigned bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}
static float bnn_float(unsigned bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
float bnn_turned(float x, int cosine);
float bnn_sin(float x);
float bnn_cos(float x);
float bnn_exp(float x);
#endif

BNN_FLOAT_FUNCTION float bnn_turned(float x, int cosine) {
    const unsigned sign = bnn_bits(x) & 0x80000000u;
    const float absolute = bnn_float(bnn_bits(x) & 0x7fffffffu);
    float turns, rest;
    if (absolute < 0x1p17f) {
        turns = fmaf(absolute, 0x1.45f306p-1f, 12582912.0f);
        const float steps = turns - 12582912.0f;
        rest = fmaf(steps, -0x1.921fb6p+0f, absolute);
        rest = fmaf(steps, 0x1.777a5cp-25f, rest);
        rest = fmaf(steps, 0x1.ee59dap-50f, rest);
    } else {
        const double whole_x = absolute;
        double m = whole_x, high = 0x1.45f306dc9c883p-1, low = -0x1.6b01ec5417056p-55;
        if (whole_x >= 0x1p44) { m = whole_x * 0x1p-21, high = 0x1.b727220a94fe1p-2, low = 0x1.d5f47d4d37703p-57; }
        if (whole_x >= 0x1p65) { m = whole_x * 0x1p-42, high = 0x1.1054a7f09d5f4p+0, low = 0x1.f534ddc0db629p-54; }
        if (whole_x >= 0x1p86) { m = whole_x * 0x1p-63, high = 0x1.fc2757d1f534ep-1, low = -0x1.1f924eb53361ep-56; }
        if (whole_x >= 0x1p107) { m = whole_x * 0x1p-84, high = 0x1.7d1f534ddc0dbp+0, low = 0x1.8a5664f10e410p-54; }
        const double whole = rint(m * high);
        const double quarters = whole - 4.0 * floor(whole * 0.25);
        turns = (float)quarters + 12582912.0f;
        rest = (float)(fma(m, low, fma(m, high, -whole)) * 0x1.921fb54442d18p+0);
    }
    const float square = rest * rest;
    const unsigned quarter = bnn_bits(turns) + (cosine ? 1u : 0u);
    float value;
    if (quarter & 1u) {
        value = fmaf(2.4412080165348016e-05f, square, -0.0013887130189687014f);
        value = fmaf(value, square, 0.04166664183139801f);
        value = fmaf(value, square, -0.5f);
        value = fmaf(value, square, 1.0f);
    } else {
        value = fmaf(-0.00019505539967212826f, square, 0.008332095108926296f);
        value = fmaf(value, square, -0.16666653752326965f);
        value = fmaf(value * square, rest, rest);
    }
    return bnn_float(bnn_bits(value) ^ ((quarter & 2u) << 30) ^ (cosine ? 0u : sign));
}

BNN_FLOAT_FUNCTION float bnn_sin(float x) { return bnn_turned(x, 0); }

BNN_FLOAT_FUNCTION float bnn_cos(float x) { return bnn_turned(x, 1); }

BNN_FLOAT_FUNCTION float bnn_exp(float x) {
    // NaN is neither below nor above, and stays.
    const float bounded = x < -104.0f ? -104.0f : x > 89.0f ? 89.0f : x;
    const float turns = fmaf(bounded, 0x1.715476p+0f, 12582912.0f);
    const float steps = turns - 12582912.0f;
    float rest = fmaf(steps, -0x1.62e430p-1f, bounded);
    rest = fmaf(steps, 0x1.05c610p-29f, rest);
    float value = fmaf(0.0013819823507219553f, rest, 0.008368686772882938f);
    value = fmaf(value, rest, 0.041668277233839035f);
    value = fmaf(value, rest, 0.1666652113199234f);
    value = fmaf(value, rest, 0.4999999403953552f);
    value = fmaf(value * rest, rest, rest) + 1.0f;
    const int power = (int)(bnn_bits(turns) - 0x4b400000u), half = power >> 1;
    return value * bnn_float((unsigned)(half + 127) << 23) * bnn_float((unsigned)(power - half + 127) << 23);
}
