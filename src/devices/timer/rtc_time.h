/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Seconds since 1970 to the clock's registers and back, and when an alarm comes next. No state.
 *
 * Trust     Register contents are the guest's: any byte gives some date or some pattern.
 */
#pragma once

#include "base/util.h"

enum rtc_reg {
    RTC_SECONDS = 0, RTC_SECONDS_ALARM = 1, RTC_MINUTES = 2, RTC_MINUTES_ALARM = 3, RTC_HOURS = 4,
    RTC_HOURS_ALARM = 5, RTC_WEEKDAY = 6, RTC_DAY = 7, RTC_MONTH = 8, RTC_YEAR = 9, RTC_CENTURY = 0x32,
};

/* Bits of register B that shape the bytes. */
#define RTC_24H 0x02
#define RTC_BINARY 0x04

void rtc_encode(int64_t seconds, uint8_t *regs, uint8_t mode);
int64_t rtc_decode(const uint8_t *regs, uint8_t mode);

/* A time of day; -1: any. */
struct rtc_alarm {
    int hour, minute, second;
};
struct rtc_alarm rtc_alarm_decode(const uint8_t *regs, uint8_t mode);
/* The first second after `after_s` that matches, or -1: none ever will. */
int64_t rtc_alarm_next(struct rtc_alarm a, int64_t after_s);
