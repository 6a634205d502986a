// How fast this processor can multiply and accumulate bits at all: xor, count and add on registers, nothing else.
//
// Each loop is one way to count. No operand is loaded, nothing is stored and narrow counters are never widened, so no kernel that
// counts this way can be faster. The empty asm statements stand for "another operand now": they emit no instruction, but the
// compiler must not move the work out of the loop.
#include <stdint.h>
#include <time.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__AVX512VPOPCNTDQ__)
typedef __m512i vector;
#define IN_REGISTER "+v"
#define BITS 512
static inline vector count(vector x) { return _mm512_popcnt_epi32(x); }
static inline vector add(vector x, vector y) { return _mm512_add_epi32(x, y); }
static inline vector differing(vector x, vector y) { return _mm512_xor_si512(x, y); }
#elif defined(__AVX512BW__)
typedef __m512i vector;
#define IN_REGISTER "+v"
#define BITS 512
#define BYTES 1
static inline vector count(vector x) {
    const vector nibble = _mm512_set1_epi8(15);
    const vector table = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    vector low = _mm512_shuffle_epi8(table, _mm512_and_si512(x, nibble));
    vector high = _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi32(x, 4), nibble));
    return _mm512_add_epi8(low, high);
}
static inline vector add(vector x, vector y) { return _mm512_add_epi8(x, y); }
static inline vector differing(vector x, vector y) { return _mm512_xor_si512(x, y); }
static inline vector parity(vector x, vector y, vector z) { return _mm512_ternarylogic_epi32(x, y, z, 0x96); }
static inline vector majority(vector x, vector y, vector z) { return _mm512_ternarylogic_epi32(x, y, z, 0xE8); }
#elif defined(__AVX2__)
typedef __m256i vector;
#define IN_REGISTER "+x"
#define BITS 256
#define BYTES 1
static inline vector count(vector x) {
    const vector nibble = _mm256_set1_epi8(15);
    const vector table = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    vector low = _mm256_shuffle_epi8(table, _mm256_and_si256(x, nibble));
    vector high = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi32(x, 4), nibble));
    return _mm256_add_epi8(low, high);
}
static inline vector add(vector x, vector y) { return _mm256_add_epi8(x, y); }
static inline vector differing(vector x, vector y) { return _mm256_xor_si256(x, y); }
static inline vector parity(vector x, vector y, vector z) { return _mm256_xor_si256(_mm256_xor_si256(x, y), z); }
static inline vector majority(vector x, vector y, vector z) {
    vector odd = _mm256_xor_si256(x, y);
    return _mm256_or_si256(_mm256_and_si256(x, y), _mm256_and_si256(odd, z));
}
#elif defined(__ARM_NEON)
#include <arm_neon.h>
typedef uint8x16_t vector;
#define IN_REGISTER "+w"
#define BITS 128
static inline vector count(vector x) { return vcntq_u8(x); }
static inline vector add(vector x, vector y) { return vaddq_u8(x, y); }
static inline vector differing(vector x, vector y) { return veorq_u8(x, y); }
#else
#error "no loop is written for this processor"
#endif

static volatile uint8_t sink;

static void consume(vector x) {
    uint8_t bytes[sizeof x];
    __builtin_memcpy(bytes, &x, sizeof x);
    sink = bytes[0];
}

static vector some(int seed) {
    uint8_t bytes[sizeof(vector)];
    for (unsigned i = 0; i < sizeof bytes; ++i) bytes[i] = (uint8_t)(seed * 37 + i * 101);
    vector x;
    __builtin_memcpy(&x, bytes, sizeof x);
    return x;
}

// PIXELS times COLUMNS counters, as in a register tile.
#define TILE(PIXELS, COLUMNS)                                                                    \
    static void tile_##PIXELS##_##COLUMNS(long repeat) {                                         \
        vector pixel[PIXELS], column[COLUMNS], counter[PIXELS * COLUMNS];                        \
        for (int i = 0; i < PIXELS; ++i) pixel[i] = some(i);                                     \
        for (int j = 0; j < COLUMNS; ++j) column[j] = some(100 + j);                             \
        for (int i = 0; i < PIXELS * COLUMNS; ++i) counter[i] = some(0);                         \
        for (long n = 0; n < repeat; ++n) {                                                      \
            _Pragma("clang loop unroll(full)") for (int i = 0; i < PIXELS; ++i) {                \
                __asm__ volatile("" : IN_REGISTER(pixel[i]));                                    \
                _Pragma("clang loop unroll(full)") for (int j = 0; j < COLUMNS; ++j)             \
                    counter[i * COLUMNS + j] =                                                   \
                        add(counter[i * COLUMNS + j], count(differing(pixel[i], column[j])));    \
            }                                                                                    \
        }                                                                                        \
        for (int i = 0; i < PIXELS * COLUMNS; ++i) consume(counter[i]);                          \
    }
TILE(4, 1)
TILE(8, 1)
TILE(12, 1)
TILE(4, 2)
TILE(7, 2)
TILE(4, 4)

#if defined(BYTES)
// Carry-save: eight vectors of bits become one of weight eight, and only that one is counted (Harley and Seal).
static inline vector next(vector *pixel, vector column) {
    __asm__ volatile("" : IN_REGISTER(*pixel));
    return differing(*pixel, column);
}
#define ADD(carry, sum, x, y) carry = majority(sum, x, y), sum = parity(sum, x, y)
#define NEXT(k) next(&pixel, column[k])
#define CARRY_SAVE(CHAINS)                                                                              \
    static void carry_save_##CHAINS(long repeat) {                                                      \
        vector pixel = some(1), column[2] = {some(2), some(3)};                                         \
        vector ones[CHAINS], twos[CHAINS], fours[CHAINS], counter[CHAINS];                              \
        for (int c = 0; c < CHAINS; ++c) ones[c] = twos[c] = fours[c] = counter[c] = some(c);           \
        for (long n = 0; n < repeat; ++n) {                                                             \
            _Pragma("clang loop unroll(full)") for (int c = 0; c < CHAINS; ++c) {                       \
                vector x, y, two, other_two, four, other_four, eight;                                   \
                x = NEXT(0), y = NEXT(1), ADD(two, ones[c], x, y);                                      \
                x = NEXT(0), y = NEXT(1), ADD(other_two, ones[c], x, y);                                \
                ADD(four, twos[c], two, other_two);                                                     \
                x = NEXT(0), y = NEXT(1), ADD(two, ones[c], x, y);                                      \
                x = NEXT(0), y = NEXT(1), ADD(other_two, ones[c], x, y);                                \
                ADD(other_four, twos[c], two, other_two);                                               \
                ADD(eight, fours[c], four, other_four);                                                 \
                counter[c] = add(counter[c], count(eight));                                             \
            }                                                                                           \
        }                                                                                               \
        for (int c = 0; c < CHAINS; ++c) consume(counter[c]), consume(ones[c]), consume(twos[c]), consume(fours[c]); \
    }
CARRY_SAVE(1)
CARRY_SAVE(2)
CARRY_SAVE(3)
#endif

static const struct {
    void (*loop)(long);
    const char *name;
    int vectors;
} loops[] = {
    {tile_4_1, "4 pixels x 1", 4},   {tile_8_1, "8 pixels x 1", 8},   {tile_12_1, "12 pixels x 1", 12},
    {tile_4_2, "4 pixels x 2", 8},   {tile_7_2, "7 pixels x 2", 14},  {tile_4_4, "4 pixels x 4", 16},
#if defined(BYTES)
    {carry_save_1, "carry-save", 8}, {carry_save_2, "carry-save, 2 chains", 16}, {carry_save_3, "carry-save, 3 chains", 24},
#endif
};

int limit_count(void) { return sizeof loops / sizeof loops[0]; }

const char *limit_name(int index) { return loops[index].name; }

// Binary multiply-accumulates per second.
double limit_rate(int index, long macs) {
    double per_turn = (double)loops[index].vectors * BITS;
    long repeat = (long)(macs / per_turn) + 1;
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    loops[index].loop(repeat);
    clock_gettime(CLOCK_MONOTONIC, &end);
    return repeat * per_turn / ((end.tv_sec - start.tv_sec) + 1e-9 * (end.tv_nsec - start.tv_nsec));
}
