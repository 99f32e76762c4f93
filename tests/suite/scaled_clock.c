/* Lets a program that is loaded with this (LD_PRELOAD) live through a day in a minute: the wall clock and the time since
 * boot start at a moment of ours and run so many times faster. The monotonic clock, which timers and waits go by, is left
 * alone, as are the waits themselves.   FOREBAY_TEST_CLOCK="<first second since 1970> <times as fast>" */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define SECOND 1000000000LL

static int (*real)(clockid_t, struct timespec *);
static long long first_s, rate;
static struct timespec wall_began, boot_began;

static long long ns(struct timespec at) { return at.tv_sec * SECOND + at.tv_nsec; }

__attribute__((constructor)) static void begin(void)
{
    const char *setting = getenv("FOREBAY_TEST_CLOCK");
    real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    if (!setting || sscanf(setting, "%lld %lld", &first_s, &rate) != 2) {
        fprintf(stderr, "FOREBAY_TEST_CLOCK is not \"<first second since 1970> <times as fast>\"\n");
        abort();
    }
    real(CLOCK_REALTIME, &wall_began);
    real(CLOCK_BOOTTIME, &boot_began);
}

int clock_gettime(clockid_t id, struct timespec *at)
{
    /* Somebody else's constructor may ask before ours has run. */
    if (!real)
        begin();
    int failed = real(id, at);
    if (failed || (id != CLOCK_REALTIME && id != CLOCK_BOOTTIME))
        return failed;
    struct timespec began = id == CLOCK_REALTIME ? wall_began : boot_began;
    long long passed = (ns(*at) - ns(began)) * rate;
    long long now = (id == CLOCK_REALTIME ? first_s * SECOND : ns(began)) + passed;
    at->tv_sec = now / SECOND;
    at->tv_nsec = now % SECOND;
    return 0;
}
