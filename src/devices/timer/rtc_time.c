/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The clock's arithmetic. */
#include "devices/timer/rtc_time.h"

#include <time.h>

#define DAY_S 86400
#define HOUR_PM 0x80
#define ALARM_ANY 0xc0 /* both bits: matches always */

static uint8_t encode(int v, uint8_t mode)
{
    return (uint8_t)(mode & RTC_BINARY ? v : v / 10 << 4 | v % 10);
}

static int decode(uint8_t v, uint8_t mode)
{
    return mode & RTC_BINARY ? v : (v >> 4) * 10 + (v & 15);
}

static uint8_t encode_hour(int hour, uint8_t mode)
{
    if (mode & RTC_24H)
        return encode(hour, mode);
    return encode(hour % 12 ? hour % 12 : 12, mode) | (hour >= 12 ? HOUR_PM : 0);
}

static int decode_hour(uint8_t v, uint8_t mode)
{
    if (mode & RTC_24H)
        return decode(v, mode);
    return decode(v & ~HOUR_PM, mode) % 12 + (v & HOUR_PM ? 12 : 0);
}

void rtc_encode(int64_t seconds, uint8_t *regs, uint8_t mode)
{
    time_t t = seconds;
    struct tm tm;
    if (!gmtime_r(&t, &tm))
        return;
    int year = (tm.tm_year + 1900) % 10000;
    regs[RTC_SECONDS] = encode(tm.tm_sec % 60, mode);
    regs[RTC_MINUTES] = encode(tm.tm_min, mode);
    regs[RTC_HOURS] = encode_hour(tm.tm_hour, mode);
    regs[RTC_WEEKDAY] = encode(tm.tm_wday + 1, mode);
    regs[RTC_DAY] = encode(tm.tm_mday, mode);
    regs[RTC_MONTH] = encode(tm.tm_mon + 1, mode);
    regs[RTC_YEAR] = encode(year % 100, mode);
    regs[RTC_CENTURY] = encode(year / 100, mode);
}

int64_t rtc_decode(const uint8_t *regs, uint8_t mode)
{
    struct tm tm = {
        .tm_sec = decode(regs[RTC_SECONDS], mode),
        .tm_min = decode(regs[RTC_MINUTES], mode),
        .tm_hour = decode_hour(regs[RTC_HOURS], mode),
        .tm_mday = decode(regs[RTC_DAY], mode),
        .tm_mon = decode(regs[RTC_MONTH], mode) - 1,
        .tm_year = decode(regs[RTC_CENTURY], mode) * 100 + decode(regs[RTC_YEAR], mode) - 1900,
    };
    return timegm(&tm);
}

struct rtc_alarm rtc_alarm_decode(const uint8_t *regs, uint8_t mode)
{
    uint8_t s = regs[RTC_SECONDS_ALARM], m = regs[RTC_MINUTES_ALARM], h = regs[RTC_HOURS_ALARM];
    return (struct rtc_alarm){
        .hour = h >= ALARM_ANY ? -1 : decode_hour(h, mode),
        .minute = m >= ALARM_ANY ? -1 : decode(m, mode),
        .second = s >= ALARM_ANY ? -1 : decode(s, mode),
    };
}

static bool matches(int want, int have)
{
    return want < 0 || want == have;
}

/* First match at or after second `from` of a day, or -1. At most 24 + 60 + 60 steps count. */
static int match_in_day(struct rtc_alarm a, int from)
{
    for (int h = from / 3600; h < 24; h++, from = h * 3600) {
        if (!matches(a.hour, h))
            continue;
        for (int m = from / 60 % 60; m < 60; m++, from = h * 3600 + m * 60) {
            if (!matches(a.minute, m))
                continue;
            int s = a.second < 0 ? from % 60 : a.second;
            if (s >= from % 60)
                return h * 3600 + m * 60 + s;
        }
    }
    return -1;
}

int64_t rtc_alarm_next(struct rtc_alarm a, int64_t after_s)
{
    if (a.hour > 23 || a.minute > 59 || a.second > 59)
        return -1;
    int64_t from = after_s + 1, day = from / DAY_S - (from % DAY_S < 0);
    int t = match_in_day(a, (int)(from - day * DAY_S));
    if (t < 0)
        t = match_in_day(a, 0), day++;
    return t < 0 ? -1 : day * DAY_S + t;
}
