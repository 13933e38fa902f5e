from django import template

register = template.Library()


@register.filter
def grouped(number: int | None) -> str:
    """`1,234,567`"""
    return f"{number or 0:,}"
