from django import template

from auren.ages import ago

register = template.Library()
register.filter("ago", ago)
