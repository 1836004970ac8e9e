"""Where the views are."""

from django.urls import path

from board import views

urlpatterns = [
    path("", views.page, name="page"),
    path("sign-in/<user>", views.sign_in, name="sign-in"),
    path("ws-token", views.ws_token, name="ws-token"),
    path("povs/<pov_id>/tasks/<task_id>/done", views.task_done, name="task-done"),
    path("povs/<pov_id>/decision", views.decide, name="decide"),
]
